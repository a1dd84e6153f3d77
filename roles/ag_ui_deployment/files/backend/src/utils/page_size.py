"""Adapts the number of entries per page to their size, for queries that limit only the number."""

_FIRST = 64


class PageSize:
    """Starts small and at most doubles per page, toward a target size in bytes.

    `entries` is the number to request next, at most `maximum`.
    """

    def __init__(self, maximum: int, *, target_bytes: int = 2 * 1024 * 1024) -> None:
        self._maximum = maximum
        self._target_bytes = target_bytes
        self.entries = min(_FIRST, maximum)

    def adjust(self, entries: int, size: int) -> None:
        """Report a page of `entries` entries with `size` bytes in total."""
        if entries:
            fitting = self._target_bytes * entries // max(size, 1)
            self.entries = max(1, min(self._maximum, self.entries * 2, fitting))
