"""Fuzzing: what atheris makes up is thrown at the parsers and at whole journals. `python3 run.py fuzz [SECONDS]`."""
