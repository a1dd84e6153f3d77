"""How many entries to ask for at a time, when only their number can be asked for."""


class PageSize:
    """Begins small, doubles, and aims at a number of bytes: entries may have any size.

    `entries` is what to ask for next; it never exceeds `maximum`.
    """

    def __init__(
        self, maximum: int, *, first: int = 64, target_bytes: int = 2 * 1024 * 1024
    ) -> None:
        self._maximum = maximum
        self._target_bytes = target_bytes
        self.entries = min(first, maximum)

    def adjust(self, entries: int, size: int) -> None:
        """A page of so many entries had so many bytes."""
        if entries:
            fitting = self._target_bytes * entries // max(size, 1)
            self.entries = max(1, min(self._maximum, self.entries * 2, fitting))
