"""Known bugs as patches, and the command that sees the tests find each: `python3 run.py mutants`."""
