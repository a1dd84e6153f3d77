"""The open streams of this process, so that they can be closed when access is revoked."""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from src.services.auth.tokens import AccessToken

EndReason = Literal["session_ended", "access_changed"]
# Recent changes are remembered for this long, for streams that are being opened with an account that
# was read before the change.
_REMEMBERED_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class AccessChange:
    """An access change of a user.

    It affects one session (`session_id`), all but `spared_session_id`, or all sessions.
    """

    user_id: UUID
    session_id: UUID | None
    spared_session_id: UUID | None
    reason: EndReason

    def affects(self, user_id: UUID, session_id: UUID) -> bool:
        if user_id != self.user_id or session_id == self.spared_session_id:
            return False
        return self.session_id is None or self.session_id == session_id


class StreamRegistry:
    """Holds all streams that depend on a login while they are open."""

    def __init__(self) -> None:
        self._streams: dict[object, tuple[AccessToken, Callable[[EndReason], None]]] = {}
        self._recent: OrderedDict[AccessChange, float] = OrderedDict()

    @contextmanager
    def registered(self, access: AccessToken, end: Callable[[EndReason], None]) -> Iterator[None]:
        """Register a stream for the duration of the block.

        Args:
            access: The access of its client.
            end: Called at most once, in the event loop, if the access is revoked within the block.
        """
        key = object()
        self._streams[key] = (access, end)
        try:
            for change, changed_at in list(self._recent.items()):
                if changed_at >= access.read_at and change.affects(
                    access.user.id, access.session_id
                ):
                    self._end(key, change)
                    break
            yield
        finally:
            self._streams.pop(key, None)

    def end(self, change: AccessChange) -> None:
        """End the affected streams, including those that are just being opened."""
        now = time.monotonic()
        self._recent[change] = now
        self._recent.move_to_end(change)
        while next(iter(self._recent.values())) < now - _REMEMBERED_SECONDS:
            self._recent.popitem(last=False)
        for key, (access, _) in list(self._streams.items()):
            if change.affects(access.user.id, access.session_id):
                self._end(key, change)

    @property
    def sessions(self) -> set[UUID]:
        """The sessions with an open stream."""
        return {access.session_id for access, _ in self._streams.values()}

    def _end(self, key: object, change: AccessChange) -> None:
        stream = self._streams.pop(key, None)
        if stream is not None:
            stream[1](change.reason)
