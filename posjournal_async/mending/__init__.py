"""For the command: a journal made whole again, with a plan first and nothing thrown away."""
