"""The error of this program."""


class BackupError(Exception):
    """A failure with a message for the operator."""
