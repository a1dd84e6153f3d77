"""Replay from ring buffer, Redis and PostgreSQL under load, and gaps."""

import asyncio
import random
import time
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest

from src.models.event import StreamId
from src.models.permissions import Role
from src.services.events import replay as event_replay
from src.services.events.replay import EventReplay
from tests.run_checker import Frame, check_feed, check_frames, events_of
from tests.support.builders import JOB, shield_event
from tests.support.environment import GROUP, Environment
from tests.support.problems import check_problem
from tests.support.proxy import TcpProxy
from tests.support.server import Backend, running
from tests.support.sse import sse
from tests.support.waiting import until

PER_SECOND = 1000
SECONDS = 4
JOBS = 20


async def admin_token(backend: Backend) -> str:
    return backend.token_of(await backend.add_user("admin@shield.test", Role.ADMIN))


def gaps_of(frames: list[Frame]) -> list[dict[str, Any]]:
    return [event["value"] for event in events_of(frames) if event.get("name") == "hx.shield.gap"]


class Publisher:
    """Publishes events of many jobs at a constant rate.

    Redis keeps few, but all that are not stored.
    """

    def __init__(self, environment: Environment, keep: int) -> None:
        self._environment = environment
        self._keep = keep
        self.ids: list[str] = []

    async def run(self) -> None:
        jobs = [f"job-{n}" for n in range(JOBS)]
        due = time.monotonic()
        for number in range(0, PER_SECOND * SECONDS, JOBS):
            kind = "job:queued" if not number else "rag:chunk_processed"
            batch = [shield_event(kind, {"chunk": number}, job=job) for job in jobs]
            self.ids += map(str, await self._environment.publish(*batch))
            if number % 200 == 0:
                await self._trim_what_is_stored()
            due += JOBS / PER_SECOND
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        self.ids += map(
            str,
            await self._environment.publish(
                *(shield_event("job:complete", job=job) for job in jobs)
            ),
        )

    async def _trim_what_is_stored(self) -> None:
        redis, stream = self._environment.redis, self._environment.stream
        (group,) = await redis.xinfo_groups(stream)
        pending = await redis.xpending(stream, GROUP)
        stored = pending["min"] or group["last-delivered-id"]
        if len(self.ids) > self._keep:
            kept = StreamId.parse(self.ids[-self._keep])
            await redis.xtrim(stream, minid=str(min(kept, StreamId.parse(stored.decode()))))


class ReconnectingClient:
    """A client that disconnects repeatedly and reconnects to another instance."""

    def __init__(self, seed: int, instances: list[Backend], token: str) -> None:
        self._chance = random.Random(seed)
        self._instances = instances
        self._token = token
        self.ids: list[str] = []
        self.gaps: list[dict[str, Any]] = []

    async def run(self, publishing: Publisher, done: asyncio.Event) -> None:
        while not done.is_set() or self.ids[-1:] != publishing.ids[-1:]:
            # Some resume at once, some after the ring buffer has dropped what they missed, and some
            # need PostgreSQL.
            back = 0 if done.is_set() else self._chance.choice((0, 0, 500, len(self.ids) // 2))
            back = min(back, len(self.ids))
            del self.ids[len(self.ids) - back :]
            cursor = self.ids[-1] if self.ids else "0-0"
            instance = self._chance.choice(self._instances)
            async with sse(instance.http, after=cursor, token=self._token) as client:
                count = self._chance.randint(1, 1500)
                with suppress(AssertionError):
                    await client.until(lambda it, n=count: len(it.ids) >= n, 1.5)  # type: ignore[misc]
                frames = list(client.frames)
            check_frames(frames, after=cursor)
            self.ids += [frame.record_id for frame in frames if frame.record_id]
            self.gaps += gaps_of(frames)


async def test_reconnecting_clients_at_a_thousand_events_per_second(
    environment: Environment,
) -> None:
    settings = [
        environment.settings(RING_MAX_EVENTS=300, REDIS_CONSUMER_NAME=f"host-{port}")
        for port in (8002, 8003)
    ]
    async with running(settings[0]) as one, running(settings[1]) as other:
        token = await admin_token(one)
        publishing = Publisher(environment, keep=1200)
        done = asyncio.Event()
        clients = [ReconnectingClient(seed, [one, other], token) for seed in range(6)]
        running_clients = [asyncio.create_task(w.run(publishing, done)) for w in clients]
        await publishing.run()
        done.set()
        async with asyncio.timeout(60):
            await asyncio.gather(*running_clients)
        assert await environment.redis.xlen(environment.stream) < len(publishing.ids) / 2
        for client in clients:
            assert client.ids == publishing.ids
            assert client.gaps == []
        exposed = (await one.http.get("/metrics")).text + (await other.http.get("/metrics")).text
        for source in ("ring", "redis", "postgresql"):
            assert f'ag_ui_replays_total{{source="{source}"}}' in exposed


async def test_long_replays_do_not_delay_live_clients(environment: Environment) -> None:
    async with running(environment.settings(RING_MAX_EVENTS=1)) as backend:
        token = await admin_token(backend)
        for _ in range(20):
            await environment.publish(*(shield_event("rag:chunk_processed") for _ in range(500)))
        await until(environment.settled, 60)
        async with sse(backend.http, token=token) as live:
            replaying = [asyncio.create_task(_replayed(backend, token, 10_000)) for _ in range(4)]
            waits: list[float] = []
            while not all(task.done() for task in replaying):
                (published,) = await environment.publish(shield_event("worker.started", job=None))
                began = time.monotonic()
                await live.until(lambda it, one=str(published): it.ids[-1:] == [one])  # type: ignore[misc]
                waits.append(time.monotonic() - began)
            await asyncio.gather(*replaying)
        # Four replays of ten thousand events take seconds. Live events arrive in between.
        assert len(waits) > 10


async def _replayed(backend: Backend, token: str, count: int) -> None:
    async with sse(backend.http, after="0-0", token=token) as client:
        await client.until(lambda it: len(it.ids) >= count, 60)
        assert all(StreamId.parse(a) < StreamId.parse(b) for a, b in pairwise(client.ids))


class TestGaps:
    async def test_cursor_older_than_the_history(self, environment: Environment) -> None:
        async with running(environment.settings(RING_MAX_EVENTS=1)) as backend:
            token = await admin_token(backend)
            kinds = ("job:queued", "job:started", "job:progress", "job:progress")
            ids = await environment.publish(*(shield_event(kind) for kind in kinds))
            await until(environment.settled)
            await environment.trim(1)
            await environment.query(
                "DELETE FROM events WHERE (stream_ms, stream_seq) < ($1, $2)", *ids[2]
            )
            for cursor, gaps in ((ids[1], 1), (ids[2], 0)):
                async with sse(backend.http, after=cursor, token=token) as client:
                    await client.until(lambda it: it.events)
                    (job_id,) = check_feed(client.events)
                    assert job_id == JOB
                    found = gaps_of(client.frames)
                assert [gap["reason"] for gap in found] == ["expired"] * gaps
                assert [gap["after"] for gap in found] == [str(cursor)] * gaps
            exposed = (await backend.http.get("/metrics")).text
            assert 'ag_ui_gaps_total{reason="expired"} 1.0' in exposed

    async def test_entries_trimmed_during_a_redis_outage(
        self, environment: Environment, redis_proxy: TcpProxy
    ) -> None:
        async with running(environment.settings(REDIS_URL=redis_proxy.url)) as backend:
            token = await admin_token(backend)
            (first,) = await environment.publish(shield_event("job:queued"))
            async with sse(backend.http, after="0-0", token=token) as client:
                await client.until(lambda it: it.ids == [str(first)])
                await until(environment.settled)
                await redis_proxy.refuse()
                ids = await environment.publish(*(shield_event("job:progress") for _ in range(50)))
                await environment.trim(10)
                await redis_proxy.accept()
                await client.until(lambda it: it.ids[-1:] == [str(ids[-1])], 20)
                assert client.ids == [str(first), *map(str, ids[-10:])]
                check_feed([e for e in client.events if e.get("name") != "hx.shield.gap"])
                (gap,) = gaps_of(client.frames)
                assert gap["reason"] == "trimmed"
                assert gap["after"] == str(first)
                assert gap["before"] == str(ids[-10])
                (index,) = [
                    n for n, frame in enumerate(client.frames) if frame.data and "gap" in frame.data
                ]
                assert client.frames[index].id is None
            # Clients that were disconnected are notified too, at this instance and at any other.
            other = environment.settings(REDIS_CONSUMER_NAME="host-8003")
            async with running(other) as fresh:
                for instance in (backend, fresh):
                    async with sse(instance.http, after=first, token=token) as late:
                        await late.until(lambda it: it.events)
                        assert [one["reason"] for one in gaps_of(late.frames)] == ["trimmed"]
                    async with sse(instance.http, after=ids[-3], token=token) as late:
                        await late.until(lambda it: len(it.ids) == 2)
                        assert gaps_of(late.frames) == []

    async def test_entries_stored_by_another_instance_are_no_gap(
        self, environment: Environment, redis_proxy: TcpProxy
    ) -> None:
        cut_off = environment.settings(REDIS_URL=redis_proxy.url, REDIS_CONSUMER_NAME="host-8003")
        async with running(environment.settings()), running(cut_off) as backend:
            token = await admin_token(backend)
            (first,) = await environment.publish(shield_event("job:queued"))
            async with sse(backend.http, after="0-0", token=token) as client:
                await client.until(lambda it: it.ids == [str(first)])
                await until(environment.settled)
                await redis_proxy.refuse()
                ids = await environment.publish(*(shield_event("job:progress") for _ in range(50)))
                await until(environment.settled)
                await environment.trim(10)
                await redis_proxy.accept()
                await client.until(lambda it: it.ids[-1:] == [str(ids[-1])], 20)
                assert client.ids == [str(one) for one in (first, *ids)]
                assert gaps_of(client.frames) == []

    async def test_deleted_stream(self, environment: Environment) -> None:
        async with running(environment.settings()) as backend:
            token = await admin_token(backend)
            (first,) = await environment.publish(shield_event("job:queued"))
            async with sse(backend.http, after="0-0", token=token) as client:
                await client.until(lambda it: it.ids == [str(first)])
                await until(environment.settled)
                await environment.redis.delete(environment.stream)
                await client.until(lambda it: gaps_of(it.frames))
                (second,) = await environment.publish(shield_event("job:progress"))
                await client.until(lambda it: it.ids == [str(first), str(second)])
                assert [gap["reason"] for gap in gaps_of(client.frames)] == ["unknown"]
            await until(lambda: environment.has_stored([first, second]))


class TestLateOwnership:
    async def test_owner_gets_every_event_and_others_none(self, environment: Environment) -> None:
        settings = [
            environment.settings(RING_MAX_EVENTS=ring, REDIS_CONSUMER_NAME=f"host-{ring}")
            for ring in (1, 1000)
        ]
        async with running(settings[0]) as one, running(settings[1]) as other:
            alice = await one.add_user("alice@shield.test")
            bob = await one.add_user("bob@shield.test")
            tokens = {user.id: one.token_of(user) for user in (alice, bob)}
            kinds = ("job:queued", "job:started", "tool:start", "job:progress", "job:progress")
            nobodys = [shield_event(kind, {"tool_call_id": "c"}) for kind in kinds]
            known = [
                shield_event("job:progress", user=str(alice.id)),
                shield_event("job:complete", user=None),
            ]
            async with (
                sse(one.http, token=tokens[alice.id]) as live,
                sse(other.http, token=tokens[alice.id]) as live_too,
                sse(one.http, token=tokens[bob.id]) as stranger,
            ):
                before = await environment.publish(*nobodys)
                await until(lambda: one.services.events.hub.last_id == before[-1])
                ids = await environment.publish(*known)
                for client in (live, live_too):
                    await client.until(lambda it: it.ids == [str(one) for one in ids])
                    assert sources(client.frames) == [e.event_id for e in (*nobodys, *known)]
                    assert check_feed(client.events)[JOB].terminal == "RUN_FINISHED"
                assert [event for event in stranger.events if event] == []
            for instance in (one, other):
                for cursor in ("0-0", before[2], before[-1]):
                    async with sse(instance.http, after=cursor, token=tokens[alice.id]) as again:
                        await again.until(lambda it: it.ids == [str(one) for one in ids])
                        assert sources(again.frames) == sources(live.frames)
                path = f"/api/jobs/{JOB}/events"
                async with sse(instance.http, path, token=tokens[alice.id]) as run:
                    await run.until_ended()
                headers = {"Authorization": f"Bearer {tokens[bob.id]}"}
                check_problem(await instance.http.get(path, headers=headers), 404, "job-not-found")


def sources(frames: list[Frame]) -> list[str]:
    """Return the event ids of the Shield events behind the frames, each once, in order."""
    return list(dict.fromkeys(event["metadata"]["event_id"] for event in events_of(frames)))


class TestLimits:
    async def test_streams_per_user_are_limited(self, environment: Environment) -> None:
        async with running(environment.settings(STREAMS_PER_USER=2)) as backend:
            token = await admin_token(backend)
            other = backend.token_of(await backend.add_user("other@shield.test"))
            headers = {"Authorization": f"Bearer {token}"}
            async with sse(backend.http, token=token), sse(backend.http, token=token):
                refused = await backend.http.get("/events", headers=headers)
                check_problem(refused, 429, "too-many-streams-of-user")
                assert int(refused.headers["retry-after"]) > 0
                async with sse(backend.http, token=other) as client:
                    assert not client.ended
            exposed = (await backend.http.get("/metrics")).text
            assert 'ag_ui_streams_refused_total{reason="user_full"} 1.0' in exposed

    @pytest.mark.parametrize("maximum", [1, 8])
    async def test_replays_are_queued(
        self, environment: Environment, monkeypatch: pytest.MonkeyPatch, maximum: int
    ) -> None:
        # Replays never share a pass.
        monkeypatch.setattr(event_replay, "_SHARED_PASS_MS", -1)
        begun, gate, go = 0, asyncio.Event(), EventReplay._read_history

        async def gated(replay: EventReplay, one: Any) -> None:
            nonlocal begun
            begun += 1
            await gate.wait()
            await go(replay, one)

        monkeypatch.setattr(EventReplay, "_read_history", gated)
        async with running(environment.settings(RING_MAX_EVENTS=1, REPLAYS_MAX=maximum)) as backend:
            token = await admin_token(backend)
            for _ in range(4):
                await environment.publish(*(shield_event() for _ in range(200)))
            await until(environment.settled)
            replaying = [asyncio.create_task(_replayed(backend, token, 800)) for _ in range(5)]
            replay = backend.services.events.streams._replay
            await until(lambda: len(replay._passes) == 5)
            await until(lambda: begun)
            for _ in range(100):
                await asyncio.sleep(0)
            assert begun == min(maximum, 5)
            gate.set()
            await asyncio.gather(*replaying)
