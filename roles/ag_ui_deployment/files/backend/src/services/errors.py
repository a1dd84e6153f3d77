"""Faults of what was given in one field."""


class FieldFaultError(ValueError):
    """It cannot be taken; the message says why, and `field` where it was given."""

    def __init__(self, message: str, field: str) -> None:
        super().__init__(message)
        self.field = field
