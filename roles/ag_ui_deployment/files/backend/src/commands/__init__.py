"""The commands of `python -m src.cli`, one module per subject.

Each has `register(commands)`, which adds its parsers; a parser's default `run` takes the settings and
the options, and gives the exit code (None is 0).
"""
