"""The hub: record routing, and the transition from history to the live stream."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.models.event import ZERO, ShieldEvent, StreamId
from src.models.protocol import CURRENT, ProtocolVersion
from src.models.visibility import Visibility
from src.models.workspace import DEFAULT_WORKSPACE
from src.services.events.feed import Batch
from src.services.events.gaps import Gap
from src.services.events.hub import Attachment, EventHub
from src.services.events.subscription import JobScope
from tests.run_checker import parse_frames
from tests.support.builders import (
    ALL_OF_RED,
    EVERYTHING,
    JOB,
    MINE,
    MINE_IN_RED,
    OWNER,
    RED,
    STRANGER,
    job_scope,
    new_projector,
    settings_of,
    shield_event,
    stream,
    stream_id,
)

_WORKSPACES = st.frozensets(st.sampled_from((DEFAULT_WORKSPACE, RED, "blue")))
_OWNERS = st.sampled_from((UUID(OWNER), UUID(STRANGER)))
VISIBILITIES = st.builds(Visibility, _OWNERS, _WORKSPACES, _WORKSPACES) | st.just(
    EVERYTHING.visibility
)
JOBS = st.builds(
    lambda job, user, workspace: shield_event(job=job, user=user, workspace=workspace),
    st.sampled_from(("one", "two", "three", None)),
    st.sampled_from((OWNER, STRANGER, None)),
    st.sampled_from((DEFAULT_WORKSPACE, RED, "blue", None)),
)


def hub_of(*events: ShieldEvent, **values: int) -> EventHub:
    """A hub to which these events have been published."""
    hub = EventHub(settings_of(**values), new_projector())
    hub.start(ZERO)
    publish(hub, *stream(*events))
    return hub


def publish(hub: EventHub, *events: ShieldEvent) -> None:
    for event in events:
        hub.publish(hub.jobs.apply([event]), event.id)


def ids(hub: EventHub, scope: JobScope, cursor: StreamId = ZERO) -> list[StreamId]:
    attachment = hub.attach(scope, cursor)
    hub.detach(scope, attachment.reader)
    return [record.id for record in attachment.recent]


def live(attachment: Attachment) -> list[Batch]:
    """Return the batches of the feed since a client has joined it."""
    batches = (
        attachment.feed.read(n) for n in range(attachment.reader.position, attachment.feed.end)
    )
    return [batch for batch in batches if batch is not None]


class TestScopes:
    def test_scopes_of_administrator_user_and_job(self) -> None:
        hub = hub_of(
            shield_event("job:queued", job="mine", user=OWNER),
            shield_event("job:queued", job="theirs", user=STRANGER),
            shield_event("job:queued", job="nobodys"),
            shield_event("worker.started", job=None),
            shield_event("job:progress", job=None),
        )
        assert ids(hub, EVERYTHING) == [stream_id(n) for n in (1, 2, 3, 4, 5)]
        assert ids(hub, MINE) == [stream_id(1)]
        assert ids(hub, job_scope("theirs")) == [stream_id(2)]
        assert ids(hub, JobScope(Visibility(UUID(int=1)))) == []

    def test_scopes_of_workspace_administrator_and_member(self) -> None:
        hub = hub_of(
            shield_event("job:queued", job="mine", user=OWNER),
            shield_event("job:queued", job="mine in red", user=OWNER, workspace=RED),
            shield_event("job:queued", job="theirs in red", user=STRANGER, workspace=RED),
            shield_event("job:queued", job="nobody's in red", workspace=RED),
            shield_event("worker.started", job=None, workspace=RED),
        )
        assert ids(hub, MINE) == [stream_id(1)]
        assert ids(hub, MINE_IN_RED) == [stream_id(1), stream_id(2)]
        assert ids(hub, ALL_OF_RED) == [stream_id(2), stream_id(3), stream_id(4)]

    @given(st.lists(VISIBILITIES, max_size=6), st.lists(JOBS, min_size=1, max_size=12))
    def test_feed_gets_every_visible_record_once(
        self, visibilities: list[Visibility], jobs: list[ShieldEvent]
    ) -> None:
        hub = hub_of()
        records = [one for event in stream(*jobs) for one in hub.jobs.apply([event])]
        attachments = [hub.attach(JobScope(one), None) for one in visibilities]
        hub.publish(records, records[-1].id)
        for attachment, one in zip(attachments, visibilities, strict=True):
            shown = [record for record in records if JobScope(one).shows(record)]
            frames = b"".join(batch.frames for batch in live(attachment))
            assert frames == b"".join(record.frames for record in shown)
            hub.detach(JobScope(one), attachment.reader)
        assert len(hub.feeds) == 0
        assert hub._feeds[CURRENT]._feeds_by_owner_scope == {}

    def test_active_runs_of_a_scope(self) -> None:
        hub = hub_of(
            shield_event("job:queued", job="mine", user=OWNER),
            shield_event("job:queued", job="theirs", user=STRANGER),
            shield_event("job:complete", job="ended", user=OWNER),
        )
        on = {
            scope: {state.job_id for state in hub.attach(scope, None).jobs}
            for scope in (EVERYTHING, MINE, job_scope("ended"))
        }
        assert on == {
            EVERYTHING: {"mine", "theirs"},
            MINE: {"mine"},
            job_scope("ended"): {"ended"},
        }

    def test_job_with_new_owner_is_marked_for_inspection(self) -> None:
        hub = hub_of(shield_event("job:queued"), shield_event("tool:start", {"id": "c"}))
        attachment, other = hub.attach(MINE, None), hub.attach(EVERYTHING, None)
        late = shield_event("job:progress", user=OWNER)
        publish(hub, late, shield_event("job:progress"))
        batches = live(attachment)
        assert [batch.events for batch in batches] == [1, 1]
        alone = batches[0].record_to_inspect
        assert alone is not None
        assert alone.id == late.id
        assert batches[1].record_to_inspect is None
        assert [batch.record_to_inspect for batch in live(other)] == [None, None]

    @pytest.mark.parametrize("version", ProtocolVersion)
    def test_feeds_of_one_version_share_an_encoding(self, version: ProtocolVersion) -> None:
        hub = hub_of()
        attachments = [
            hub.attach(scope, None, version) for scope in (EVERYTHING, MINE, job_scope(JOB))
        ]
        publish(hub, shield_event("job:queued", user=OWNER))
        frames = [live(attachment)[0].frames for attachment in attachments]
        assert frames[0] is frames[1] is frames[2]

    def test_versions_share_unchanged_records(self) -> None:
        hub = hub_of()
        attachments = [hub.attach(MINE, None, version) for version in ProtocolVersion]
        assert len(hub.feeds) == len(ProtocolVersion)
        for kind in ("job:queued", "job:progress", "job:cancelled"):
            publish(hub, shield_event(kind, user=OWNER))
        current, older = (
            [batch.frames for batch in live(attachment)] for attachment in attachments
        )
        assert current[0] != older[0]
        assert current[1] is older[1]
        assert current[2] != older[2]
        for attachment, version in zip(attachments, ProtocolVersion, strict=True):
            hub.detach(MINE, attachment.reader, version)
        assert len(hub.feeds) == 0

    def test_gap_notice_reaches_every_feed(self) -> None:
        hub = hub_of()
        attachments = [hub.attach(scope, None) for scope in (EVERYTHING, EVERYTHING, MINE)]
        gap = Gap("trimmed", stream_id(1), stream_id(9))
        assert hub.publish_gap(gap) == 3
        for attachment in attachments:
            (notice,) = parse_frames(live(attachment)[0].frames)
            assert notice.id is None
            assert notice.json()["value"]["reason"] == "trimmed"
        assert hub.gap == gap


class TestRing:
    def test_ring_keeps_the_newest_and_has_a_low_watermark(self) -> None:
        hub = hub_of(*(shield_event() for _ in range(10)), RING_MAX_EVENTS=3)
        assert ids(hub, EVERYTHING) == [stream_id(n) for n in (8, 9, 10)]
        assert hub.low_watermark == stream_id(7)
        assert ids(hub, EVERYTHING, stream_id(9)) == [stream_id(10)]
        assert ids(hub, EVERYTHING, stream_id(10)) == []

    def test_ring_is_bounded_in_bytes(self) -> None:
        events = (shield_event(data={"x": "x" * 1_000}) for _ in range(50))
        hub = hub_of(*events, RING_MAX_BYTES=8_192)
        assert hub._ring_bytes <= 8_192
        assert 1 <= len(ids(hub, EVERYTHING)) < 10
        assert (
            hub.low_watermark.next() == ids(hub, EVERYTHING)[0]
            or hub.low_watermark < ids(hub, EVERYTHING)[0]
        )

    def test_no_recent_records_without_a_cursor(self) -> None:
        assert hub_of(shield_event()).attach(EVERYTHING, None).recent == []

    def test_event_without_frames_advances_the_position(self) -> None:
        event = shield_event(event_id="once")
        hub = hub_of(event, event, event)
        assert ids(hub, EVERYTHING) == [stream_id(1)]
        assert hub.last_id == stream_id(3)


class TestJoining:
    def test_recent_and_live_records_are_contiguous(self) -> None:
        events = stream(*(shield_event() for _ in range(10)))
        for index in range(11):
            hub = hub_of(*events[:index])
            joined = hub.attach(EVERYTHING, ZERO)
            publish(hub, *events[index:])
            frames = b"".join(batch.frames for batch in live(joined))
            ids_live = [frame.id for frame in parse_frames(frames) if frame.id]
            assert [*(str(one.id) for one in joined.recent), *ids_live] == [
                str(one.id) for one in events
            ]

    def test_feed_is_removed_with_its_last_reader(self) -> None:
        hub = hub_of()
        one, other = hub.attach(MINE, None), hub.attach(MINE, None)
        assert one.feed is other.feed
        hub.detach(MINE, one.reader)
        publish(hub, shield_event(user=OWNER))
        assert len(live(other)) == 1
        hub.detach(MINE, other.reader)
        assert len(hub.feeds) == 0
        assert hub.attach(MINE, None).feed is not one.feed

    def test_drain_closes_existing_and_new_feeds(self) -> None:
        hub = hub_of()
        before = hub.attach(EVERYTHING, None)
        hub.drain()
        assert before.feed.closed
        assert hub.attach(MINE, None).feed.closed
        assert hub.started.is_set()
