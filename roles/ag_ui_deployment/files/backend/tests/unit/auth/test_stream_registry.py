"""Which streams an access change ends."""

import time
from dataclasses import replace
from uuid import UUID

import pytest

from src.models.permissions import Role
from src.models.user import User
from src.services.auth.stream_registry import AccessChange, EndReason, StreamRegistry
from src.services.auth.tokens import AccessToken

VIEWER = User(id=UUID(int=1), email="alice@example.org", role=Role.VIEWER)
CONTRIBUTOR = VIEWER.model_copy(update={"role": Role.CONTRIBUTOR})
SESSION = UUID(int=2)
ANY_SESSION = AccessChange(VIEWER.id, None, None, ends_sessions=False)


def access_of(user: User = VIEWER, session_id: UUID = SESSION) -> AccessToken:
    return AccessToken(user, session_id, time.time() + 60, read_at=time.monotonic())


@pytest.mark.parametrize(
    ("current", "reasons"),
    [(VIEWER, []), (CONTRIBUTOR, ["access_changed"]), (None, ["session_ended"])],
)
def test_stream_ends_only_if_its_access_differs(
    current: User | None, reasons: list[EndReason]
) -> None:
    registry, ended = StreamRegistry(), list[EndReason]()
    with registry.registered(access_of(), ended.append):
        registry.mark_outdated(ANY_SESSION)
        assert set(registry.outdated()) == {SESSION}
        assert ended == []
        registry.verify(SESSION, current)
        assert ended == reasons
        assert registry.outdated() == {}
        registry.verify(SESSION, None)
        assert ended == reasons


def test_access_that_was_read_before_a_change_is_outdated_from_the_beginning() -> None:
    registry, ended = StreamRegistry(), list[EndReason]()
    before = access_of()
    registry.mark_outdated(ANY_SESSION)
    later = replace(access_of(CONTRIBUTOR), read_at=time.monotonic() + 1)
    with registry.registered(later, ended.append):
        assert registry.outdated() == {}
        with registry.registered(before, ended.append):
            registry.verify(SESSION, CONTRIBUTOR)
            assert ended == ["access_changed"]


@pytest.mark.parametrize(
    ("change", "outdated"),
    [
        (AccessChange(VIEWER.id, SESSION, None, ends_sessions=True), {SESSION}),
        (AccessChange(VIEWER.id, None, SESSION, ends_sessions=True), {UUID(int=3)}),
        (AccessChange(UUID(int=9), None, None, ends_sessions=True), set()),
    ],
)
def test_change_affects_the_sessions_that_it_names(
    change: AccessChange, outdated: set[UUID]
) -> None:
    registry = StreamRegistry()
    with (
        registry.registered(access_of(), lambda _: None),
        registry.registered(access_of(session_id=UUID(int=3)), lambda _: None),
    ):
        registry.mark_outdated(change)
        assert set(registry.outdated()) == outdated


def test_closed_stream_is_not_verified() -> None:
    registry, ended = StreamRegistry(), list[EndReason]()
    with registry.registered(access_of(), ended.append):
        registry.mark_outdated(ANY_SESSION)
    assert registry.outdated() == {}
    registry.verify(SESSION, None)
    assert ended == []


def test_all_streams_end_once_for_maintenance() -> None:
    registry, ended = StreamRegistry(), list[EndReason]()
    with registry.registered(access_of(), ended.append):
        with registry.registered(access_of(session_id=UUID(int=3)), ended.append):
            registry.end_all("maintenance")
            registry.end_all("maintenance")
        assert ended == ["maintenance"] * 2
        assert registry.sessions == set()
