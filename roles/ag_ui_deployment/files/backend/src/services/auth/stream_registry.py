"""The open streams of this process, so that they can be closed when access is revoked or maintenance begins."""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from src.models.user import User
from src.services.auth.tokens import AccessToken

EndReason = Literal["session_ended", "access_changed", "maintenance"]
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
    ends_sessions: bool

    def affects(self, user_id: UUID, session_id: UUID) -> bool:
        if user_id != self.user_id or session_id == self.spared_session_id:
            return False
        return self.session_id is None or self.session_id == session_id


class StreamRegistry:
    """Holds all streams that depend on a login while they are open.

    The notice of a change can arrive after a stream was opened with the new access. A notice therefore
    only marks streams as outdated, and verify() ends those whose access differs from the current one.
    """

    def __init__(self) -> None:
        self._streams: dict[object, tuple[AccessToken, Callable[[EndReason], None]]] = {}
        self._recent: OrderedDict[AccessChange, float] = OrderedDict()
        self._outdated: set[object] = set()

    @property
    def count(self) -> int:
        """Number of open streams."""
        return len(self._streams)

    @contextmanager
    def registered(self, access: AccessToken, end: Callable[[EndReason], None]) -> Iterator[None]:
        """Register a stream for the duration of the block.

        Args:
            access: The access of its client.
            end: Called at most once, in the event loop, if the stream has to end within the block.
        """
        key = object()
        self._streams[key] = (access, end)
        try:
            if any(
                changed_at >= access.read_at and change.affects(access.user.id, access.session_id)
                for change, changed_at in self._recent.items()
            ):
                self._outdated.add(key)
            yield
        finally:
            self._remove(key)

    def mark_outdated(self, change: AccessChange) -> None:
        """Mark the affected streams, including those that are just being opened."""
        now = time.monotonic()
        self._recent[change] = now
        self._recent.move_to_end(change)
        while next(iter(self._recent.values())) < now - _REMEMBERED_SECONDS:
            self._recent.popitem(last=False)
        self._outdated.update(
            key
            for key, (access, _) in self._streams.items()
            if change.affects(access.user.id, access.session_id)
        )

    def outdated(self) -> dict[UUID, AccessToken]:
        """The sessions with streams to verify, each with the access of one of them."""
        accesses = (self._streams[key][0] for key in self._outdated)
        return {access.session_id: access for access in accesses}

    def verify(self, session_id: UUID, user: User | None) -> None:
        """End the outdated streams of a session whose access is not the current one.

        Args:
            session_id: The session.
            user: The current account; None if the session has ended.
        """
        for key in list(self._outdated):
            access, end = self._streams[key]
            if access.session_id != session_id:
                continue
            self._outdated.discard(key)
            if user is None:
                self._remove(key)
                end("session_ended")
            elif user != access.user:
                self._remove(key)
                end("access_changed")

    def end_all(self, reason: EndReason) -> None:
        """End all streams that are open now."""
        for key, (_, end) in list(self._streams.items()):
            self._remove(key)
            end(reason)

    @property
    def sessions(self) -> set[UUID]:
        """The sessions with an open stream."""
        return {access.session_id for access, _ in self._streams.values()}

    def _remove(self, key: object) -> None:
        self._streams.pop(key, None)
        self._outdated.discard(key)
