"""The commands of `python -m src.cli`, one module per subject.

Each module has a function `register(commands)` that adds its parsers. A parser's default `run` takes
the settings and the parsed options, and returns the exit code (None means 0).
"""
