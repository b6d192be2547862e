"""Helpers of the three notebooks; `python3 -m src --help` lists the commands."""
