"""Who has a stream open in this process, so that it can be ended when its owner's access does."""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from src.services.auth.tokens import AccessToken

EndReason = Literal["session_ended", "access_changed"]
# For so many seconds a change is held against streams whose owner was looked at before it.
_REMEMBERED_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Change:
    """Whose access changed: all of the user's, that of one session, or of all but one."""

    user_id: UUID
    session_id: UUID | None
    spared_session_id: UUID | None
    reason: EndReason

    def concerns(self, user_id: UUID, session_id: UUID) -> bool:
        if user_id != self.user_id or session_id == self.spared_session_id:
            return False
        return self.session_id is None or self.session_id == session_id


class StreamRegistry:
    """Every stream that a login pays for is held here while it is open."""

    def __init__(self) -> None:
        self._held: dict[object, tuple[AccessToken, Callable[[EndReason], None]]] = {}
        self._recent: OrderedDict[Change, float] = OrderedDict()

    @contextmanager
    def holding(self, access: AccessToken, end: Callable[[EndReason], None]) -> Iterator[None]:
        """`end` is called at most once, in the event loop, if the access ends before the block."""
        key = object()
        self._held[key] = (access, end)
        try:
            for change, noted_at in list(self._recent.items()):
                if noted_at >= access.looked_at and change.concerns(
                    access.user.id, access.session_id
                ):
                    self._end(key, change)
                    break
            yield
        finally:
            self._held.pop(key, None)

    def end(self, change: Change) -> None:
        """End the streams that the change concerns, and those that are just being opened."""
        now = time.monotonic()
        self._recent[change] = now
        self._recent.move_to_end(change)
        while next(iter(self._recent.values())) < now - _REMEMBERED_SECONDS:
            self._recent.popitem(last=False)
        for key, (access, _) in list(self._held.items()):
            if change.concerns(access.user.id, access.session_id):
                self._end(key, change)

    @property
    def sessions(self) -> set[UUID]:
        """Those that have a stream open."""
        return {access.session_id for access, _ in self._held.values()}

    def _end(self, key: object, change: Change) -> None:
        held = self._held.pop(key, None)
        if held is not None:
            held[1](change.reason)
