"""Streams over real sockets: order, resumption at any point, limits and termination."""

import asyncio
import random
import re
import socket
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import pytest

from src.models.event import StreamId
from src.models.permissions import Role
from src.models.user import User
from tests.run_checker import Frame, check_feed, check_frames, check_run, events_of
from tests.support.accounts import bearer
from tests.support.agui_client import AgUiClient
from tests.support.builders import JOB, shield_event
from tests.support.environment import Environment
from tests.support.problems import check_problem
from tests.support.proxy import TcpProxy
from tests.support.server import Backend, running
from tests.support.sse import SseClient, sse
from tests.support.waiting import until


@pytest.fixture
async def admin(backend: Backend) -> str:
    """The access token of an administrator."""
    return backend.token_of(await backend.add_user("admin@shield.test", Role.ADMIN))


async def token_of_new_user(backend: Backend, email: str = "admin@shield.test") -> str:
    role = Role.ADMIN if email.startswith("admin") else Role.VIEWER
    return backend.token_of(await backend.add_user(email, role))


def run_of(job: str = JOB, user: User | None = None) -> list[Any]:
    """Return a job with a tool, retrieval and an answer: fourteen events."""
    owner = str(user.id) if user else None
    call = {"tool_call_id": f"call-{job}", "tool_name": "lightrag_query"}
    events: list[tuple[str, dict[str, Any]]] = [
        ("job:queued", {"job_type": "query"}),
        ("job:started", {"status": "processing"}),
        ("tool:start", {**call, "arguments": {"query": "Wie lange?"}}),
        ("tool:progress", {**call, "percent": 50}),
        *(("rag:chunk_processed", {"chunk_index": n}) for n in range(3)),
        ("rag:entity_extracted", {"entities": ["Redis", "AG-UI"]}),
        *(("job:progress", {"percent": percent}) for percent in (20, 40, 60, 80)),
        ("tool:complete", {**call, "result": {"chunks": 3}}),
        ("query.completed", {"answer": "Dreißig Tage."}),
    ]
    return [shield_event(kind, data, job=job, user=owner) for kind, data in events]


class TestFrames:
    async def test_response_headers(self, backend: Backend, admin: str) -> None:
        async with sse(backend.http, token=admin) as client:
            headers = client.response.headers
            assert headers["content-type"] == "text/event-stream; charset=utf-8"
            assert headers["cache-control"] == "no-store"
            assert headers["x-accel-buffering"] == "no"
            assert headers["x-request-id"]
            assert "content-encoding" not in headers

    async def test_bytes_of_a_run(
        self, backend: Backend, admin: str, environment: Environment
    ) -> None:
        moment = 1_763_856_000_000
        common: dict[str, Any] = {"workspace": "library", "timestamp": moment}
        async with sse(backend.http, token=admin) as client:
            first, last = await environment.publish(
                shield_event("job:queued", {"n": None}, event_id="e-1", **common),
                shield_event("job:complete", {"pages": 3}, event_id="e-2", **common),
            )
            await client.until(lambda it: str(last) in it.ids)

        def meta(kind: str, event: str) -> str:
            return (
                f'"metadata":{{"job_id":"{JOB}","workspace":"library",'
                f'"shield_type":"{kind}","event_id":"{event}"}}'
            )

        queued, done = meta("job:queued", "e-1"), meta("job:complete", "e-2")
        expected = (
            "event: RUN_STARTED\n"
            f'data: {{"type":"RUN_STARTED","timestamp":{moment},{queued},'
            f'"threadId":"library","runId":"{JOB}","protocolVersion":"1.0"}}\n\n'
            f"id: {first}\n"
            "event: ACTIVITY_SNAPSHOT\n"
            f'data: {{"type":"ACTIVITY_SNAPSHOT","timestamp":{moment},{queued},'
            f'"messageId":"job:{JOB}","activityType":"hx.shield.job",'
            f'"content":{{"job_id":"{JOB}","status":"queued","latest":{{"n":null}}}}}}\n\n'
            "event: ACTIVITY_SNAPSHOT\n"
            f'data: {{"type":"ACTIVITY_SNAPSHOT","timestamp":{moment},{done},'
            f'"messageId":"job:{JOB}","activityType":"hx.shield.job",'
            f'"content":{{"job_id":"{JOB}","status":"completed","percent":100.0,"latest":{{"pages":3}}}}}}\n\n'
            f"id: {last}\n"
            "event: RUN_FINISHED\n"
            f'data: {{"type":"RUN_FINISHED","timestamp":{moment},{done},'
            f'"threadId":"library","runId":"{JOB}","outcome":{{"type":"success"}},'
            '"result":{"pages":3}}\n\n'
        )
        wait, position, body = bytes(client.body).decode().split("\n\n", 2)
        assert re.fullmatch("retry: [0-9]{4}", wait)
        assert re.fullmatch("id: [0-9]+-[0-9]+", position)
        assert body == expected

    async def test_latency_of_single_events(
        self, backend: Backend, admin: str, environment: Environment
    ) -> None:
        delays = []
        async with sse(backend.http, token=admin) as client:
            for n in range(20):
                began = time.monotonic()
                (one,) = await environment.publish(shield_event("job:progress", {"n": n}))
                await client.until(lambda it, entry_id=str(one): entry_id in it.ids)  # type: ignore[misc]
                delays.append(time.monotonic() - began)
        # A loaded machine has outliers; the median is what users notice.
        assert sorted(delays)[10] < 0.25

    async def test_every_client_gets_every_event_in_order(
        self, backend: Backend, admin: str, environment: Environment
    ) -> None:
        clients: list[SseClient] = []
        async with asyncio.TaskGroup() as group:
            done = asyncio.Event()

            async def follow() -> None:
                async with sse(backend.http, token=admin) as client:
                    clients.append(client)
                    await done.wait()

            for _ in range(20):
                group.create_task(follow())
            await until(lambda: len(clients) == 20)
            ids: list[str] = []
            for n in range(10):
                batch = (shield_event("job:progress", {"n": (n, m)}) for m in range(30))
                ids += map(str, await environment.publish(*batch))
            await until(lambda: all(client.ids[-1:] == ids[-1:] for client in clients))
            done.set()
        assert all(client.ids == ids for client in clients)
        # Except for the first frame: the reconnect time differs for each client.
        assert len({bytes(client.body).partition(b"\n\n")[2] for client in clients}) == 1

    async def test_inactive_job_is_sent_with_its_history(self, environment: Environment) -> None:
        async with running(environment.settings()) as backend:
            await environment.publish(*run_of()[:5])
            await until(environment.settled)
            admin = await token_of_new_user(backend)
        await environment.trim(0)
        await environment.query("UPDATE jobs SET updated_at = now() - interval '2 days'")
        async with (
            running(environment.settings()) as backend,
            sse(backend.http, token=admin) as client,
        ):
            await client.until(lambda it: any(frame.id for frame in it.frames))
            assert client.events == []
            ids = await environment.publish(run_of()[9])
            await client.until(lambda it: str(ids[0]) in it.ids)
            check_feed(client.events)
            kinds = [event["type"] for event in client.events]
            assert kinds[0] == "RUN_STARTED"
            assert "TOOL_CALL_START" in kinds
            assert AgUiClient().apply(client.events).activity(f"job:{JOB}")["percent"] == 40


class TestResuming:
    @pytest.mark.parametrize("ring", [1, 5, 20_000])
    @pytest.mark.parametrize("trimmed_to", [None, 20, 3, 0])
    async def test_resume_anywhere_across_ring_redis_and_postgresql(
        self, environment: Environment, ring: int, trimmed_to: int | None
    ) -> None:
        """The limits of the ring buffer, Redis, PostgreSQL, and of a process that started later."""
        async with running(environment.settings(RING_MAX_EVENTS=ring)) as backend:
            admin = await token_of_new_user(backend)
            mixed = [one for pair in zip(run_of("a"), run_of("b"), strict=True) for one in pair]
            ids = [str(one) for one in await environment.publish(*mixed)]
            await until(environment.settled)
            async with sse(backend.http, after="0-0", token=admin) as client:
                await client.until(lambda it: it.ids[-1:] == ids[-1:])
                whole = [frame for frame in client.frames if frame.data]
            if trimmed_to is not None:
                await environment.trim(trimmed_to)
            fresh = environment.settings(RING_MAX_EVENTS=ring, REDIS_CONSUMER_NAME="host-8003")
            async with running(fresh) as other:
                for number in range(0, len(ids) + 1, 3):
                    cursor = ids[number - 1] if number else "0-0"
                    for instance in (backend, other):
                        frames = await resumed(instance, admin, cursor, ids[number:])
                        check_feed(events_of(frames))
                        missed = whole[_index_after(whole, cursor) :]
                        assert [one for one in frames if one in missed] == missed

    async def test_resume_at_random_points_while_events_are_published(
        self, environment: Environment
    ) -> None:
        settings = [
            environment.settings(RING_MAX_EVENTS=40, REDIS_CONSUMER_NAME=f"host-{port}")
            for port in (8002, 8003)
        ]
        chance = random.Random(2)
        async with running(settings[0]) as one, running(settings[1]) as other:
            admin = await token_of_new_user(one)
            jobs = [run_of(f"job-{n}") for n in range(40)]
            published: list[str] = []

            async def produce() -> None:
                for step in range(14):
                    for start in range(0, 40, 8):
                        batch = [job[step] for job in jobs[start : start + 8]]
                        published.extend(map(str, await environment.publish(*batch)))
                        await asyncio.sleep(0.005)
                    if step % 4 == 3:
                        await until(environment.settled)
                        await environment.trim(60)

            producing = asyncio.create_task(produce())
            seen: list[Frame] = []
            cursor = "0-0"
            connections = 0
            while not producing.done() or _last_id(seen) != published[-1]:
                connections += 1
                async with sse(chance.choice((one, other)).http, after=cursor, token=admin) as it:
                    count = chance.randint(1, 30)
                    with suppress(AssertionError):
                        await it.until(lambda c, n=count: len(c.ids) >= n, 0.3)  # type: ignore[misc]
                    frames = list(it.frames)
                check_frames(frames, after=cursor)
                check_feed(events_of(frames))
                seen += _up_to_last_id(frames)
                cursor = _last_id(seen) or cursor
            await producing
        assert [frame.record_id for frame in seen if frame.record_id] == published
        assert connections > 10
        clients: dict[str, AgUiClient] = {}
        for frame in seen:
            if frame.data is not None:
                event = frame.json()
                clients.setdefault(event["metadata"]["job_id"], AgUiClient()).apply([event])
        assert len(clients) == 40
        assert {client.outcome for client in clients.values()} == {"success"}
        for client in clients.values():
            assert list(client.results()) == [f"res:{next(iter(client.calls()))}"]

    async def test_header_overrides_the_query(
        self, backend: Backend, admin: str, environment: Environment
    ) -> None:
        ids = await environment.publish(
            *(shield_event("worker.started", job=None) for _ in range(3))
        )
        await until(lambda: backend.services.events.hub.last_id == ids[-1])
        path = f"/events?last_event_id={ids[0]}"
        async with sse(backend.http, path, token=admin) as by_query:
            await by_query.until(lambda it: it.ids == [str(ids[1]), str(ids[2])])
        async with sse(backend.http, path, after=ids[1], token=admin) as by_header:
            await by_header.until(lambda it: it.ids == [str(ids[2])])

    async def test_polyfill_parameter_overrides_the_initial_one(
        self, backend: Backend, admin: str, environment: Environment
    ) -> None:
        ids = await environment.publish(
            *(shield_event("worker.started", job=None) for _ in range(3))
        )
        await until(lambda: backend.services.events.hub.last_id == ids[-1])
        for query in (f"last_event_id={ids[0]}&lastEventId={ids[1]}", f"lastEventId={ids[1]}"):
            async with sse(backend.http, f"/events?{query}", token=admin) as client:
                await client.until(lambda it: it.ids == [str(ids[2])])

    @pytest.mark.parametrize("cursor", ["x", "1", "1-", "-1-1", "1-2-3", "$", "9" * 30 + "-1"])
    async def test_malformed_cursor_is_refused(
        self, backend: Backend, admin: str, cursor: str
    ) -> None:
        given: dict[str, dict[str, Any]] = {
            "header.last-event-id": {"headers": bearer(admin) | {"Last-Event-ID": cursor}},
            "query.last_event_id": {"params": {"last_event_id": cursor}},
            "query.lastEventId": {"params": {"lastEventId": cursor}},
        }
        for field, request in given.items():
            response = await backend.http.get("/events", **({"headers": bearer(admin)} | request))
            (error,) = check_problem(response, 400, "bad-cursor")["errors"]
            assert error["field"] == field

    async def test_future_cursor_gets_a_gap_notice(
        self, backend: Backend, admin: str, environment: Environment
    ) -> None:
        await environment.publish(shield_event("job:queued"))
        async with sse(backend.http, after=StreamId(2**50, 0), token=admin) as client:
            await client.until(lambda it: it.events)
            (notice,) = client.events[:1]
            assert (notice["type"], notice["name"]) == ("CUSTOM", "hx.shield.gap")


def _index_after(frames: list[Frame], cursor: str) -> int:
    """Return the index of the first frame after a cursor."""
    return next((n + 1 for n, frame in enumerate(frames) if frame.id == cursor), 0)


def _last_id(frames: list[Frame]) -> str | None:
    return next((frame.id for frame in reversed(frames) if frame.id), None)


def _up_to_last_id(frames: list[Frame]) -> list[Frame]:
    """Return what a client keeps of a broken connection: complete records."""
    indexes = [n for n, frame in enumerate(frames) if frame.id]
    kept = frames[: indexes[-1] + 1] if indexes else []
    # Frames that introduce a known run are not part of the history.
    return [frame for frame in kept if frame.data and not _is_repeated(frame)]


def _is_repeated(frame: Frame) -> bool:
    return frame.id is None and frame.json()["type"] in {"RUN_STARTED", "ACTIVITY_SNAPSHOT"}


async def resumed(backend: Backend, token: str, cursor: str, expected: list[str]) -> list[Frame]:
    """Return the frames after a cursor; they must be the expected ones, each once."""
    async with sse(backend.http, after=cursor, token=token) as client:
        await client.until(lambda it: len(it.ids) >= len(expected))
        assert client.ids == expected
        frames = [frame for frame in client.frames if frame.retry is None]
        check_frames(frames, after=cursor)
        return frames


class TestOwnership:
    async def test_users_receive_only_their_own_jobs(
        self, backend: Backend, admin: str, environment: Environment
    ) -> None:
        alice = await backend.add_user("alice@shield.test")
        bob = await backend.add_user("bob@shield.test", Role.CONTRIBUTOR)
        owners = {"of-alice": alice, "of-bob": bob, "of-nobody": None}
        tokens = {user.email: backend.token_of(user) for user in (alice, bob)}
        async with (
            sse(backend.http, token=tokens[alice.email]) as for_alice,
            sse(backend.http, token=tokens[bob.email]) as for_bob,
            sse(backend.http, token=admin) as for_admin,
        ):
            for job, owner in owners.items():
                await environment.publish(*run_of(job, owner))
            worker = await environment.publish(shield_event("worker.started", job=None))
            last = await environment.publish(shield_event(job="end-a", user=str(alice.id)))
            last += await environment.publish(shield_event(job="end-b", user=str(bob.id)))
            await for_admin.until(lambda it: it.ids[-1:] == [str(last[1])])
            await for_alice.until(lambda it: it.ids[-1:] == [str(last[0])])
            await for_bob.until(lambda it: it.ids[-1:] == [str(last[1])])
            assert set(check_feed(for_alice.events)) == {"of-alice", "end-a"}
            assert set(check_feed(for_bob.events)) == {"of-bob", "end-b"}
            assert set(check_feed(for_admin.events)) == {*owners, "end-a", "end-b"}
            assert str(worker[0]) in for_admin.ids
        await until(environment.settled)
        await environment.trim(1)
        async with sse(backend.http, after="0-0", token=tokens[bob.email]) as again:
            await again.until(lambda it: it.ids == for_bob.ids)
            assert again.events == for_bob.events

    async def test_owner_that_becomes_known_late(self, environment: Environment) -> None:
        async with running(environment.settings(RING_MAX_EVENTS=1)) as backend:
            alice = await backend.add_user("alice@shield.test")
            token = backend.token_of(alice)
            nobody, owned = run_of()[:6], run_of(user=alice)[6:]
            ids: list[StreamId] = []
            async with sse(backend.http, token=token) as live:
                ids += await environment.publish(*nobody)
                headers = bearer(token)
                hidden = await backend.http.get(f"/api/jobs/{JOB}/events", headers=headers)
                check_problem(hidden, 404, "job-not-found")
                ids += await environment.publish(*owned)
                await live.until(lambda it: it.ids[-1:] == [str(ids[-1])])
            assert live.ids == [str(one) for one in ids[6:]]
            assert check_feed(live.events)[JOB].terminal == "RUN_FINISHED"
            expected = AgUiClient().apply(live.events)
            # A client that resumes from an id before the job became theirs sees the same.
            for cursor in ("0-0", ids[3]):
                async with sse(backend.http, after=cursor, token=token) as client:
                    await client.until(lambda it: it.ids == live.ids)
                    check_feed(client.events)
                    assert AgUiClient().apply(client.events) == expected


class TestOneJob:
    async def test_live_job_streams_to_its_end(
        self, backend: Backend, environment: Environment
    ) -> None:
        alice = await backend.add_user("alice@shield.test")
        events = run_of(user=alice)
        ids = await environment.publish(*events[:5], *run_of("another", alice))
        token = backend.token_of(alice)
        await until(lambda: backend.services.events.hub.last_id == ids[-1])
        async with sse(backend.http, f"/api/jobs/{JOB}/events", token=token) as client:
            ids = await environment.publish(*events[5:])
            await client.until_ended()
            assert client.ids == [str(one) for one in ids]
            assert check_run(client.events, complete=True).outcome == "success"

    @pytest.mark.parametrize("trimmed", [False, True])
    async def test_ended_job_is_replayed_and_closed(
        self, environment: Environment, *, trimmed: bool
    ) -> None:
        async with running(environment.settings()) as backend:
            ids = await environment.publish(*run_of(), shield_event("worker.started", job=None))
            await until(environment.settled)
            admin = await token_of_new_user(backend)
            if trimmed:
                await environment.trim(0)
            # A process that starts now only has the history.
            late = environment.settings(REDIS_CONSUMER_NAME="host-8003")
            async with running(late) as other:
                for instance in (backend, other):
                    path = f"/api/jobs/{JOB}/events"
                    async with sse(instance.http, path, token=admin) as client:
                        await client.until_ended()
                        assert check_run(client.events, complete=True).outcome == "success"
                        assert client.ids == [str(ids[13])]
                        user_sees = AgUiClient().apply(client.events)
                        assert user_sees.activity(f"rag:{JOB}")["chunks_processed"] == 3
                    for number in (1, 7, 13, 14):
                        cursor = ids[number - 1]
                        async with sse(instance.http, path, after=cursor, token=admin) as client:
                            await client.until_ended()
                            missed = [str(one) for one in ids[number:14]]
                            assert client.ids == (missed or [str(ids[13])])
                            check_run(client.events, complete=True)

    @pytest.mark.parametrize("data", [b'{"n": NaN}', b'{"n": "\\ud83d"}', b"{'n': 1}", b"[" * 300])
    async def test_unreadable_end_closes_the_stream(
        self, backend: Backend, admin: str, environment: Environment, data: bytes
    ) -> None:
        end = {b"type": b"job:complete", b"job_id": JOB.encode(), b"data": data}
        await environment.publish(shield_event("job:started"))
        await until(environment.settled)
        async with sse(backend.http, f"/api/jobs/{JOB}/events", token=admin) as client:
            await environment.publish(end)
            await client.until_ended()
        assert check_run(client.events, complete=True).outcome == "success"
        await until(environment.settled)
        job = (await backend.http.get(f"/api/jobs/{JOB}", headers=bearer(admin))).json()
        assert (job["status"], job["result"]) == ("completed", client.events[-1]["result"])
        assert await environment.dead_letters() == {}


class TestLimits:
    async def test_idle_stream_sends_keep_alives(self, environment: Environment) -> None:
        async with running(environment.settings(SSE_KEEPALIVE_SECONDS=1)) as backend:
            token = await token_of_new_user(backend)
            async with sse(backend.http, token=token) as client:
                await client.until(lambda it: len(it.comments) >= 2)
                assert set(client.comments) == {"keep-alive"}
                assert b": keep-alive\n\n" in client.body

    async def test_stream_ends_when_the_token_expires(self, backend: Backend) -> None:
        user = await backend.add_user("alice@shield.test")
        lifetime = 1 / 60 * 2
        token = backend.token_of(user, ACCESS_TOKEN_EXPIRE_MINUTES=lifetime)
        began = time.monotonic()
        async with sse(backend.http, token=token) as client:
            await client.until_ended()
        assert time.monotonic() - began < 6
        assert client.comments == ["the token has expired"]

    async def test_total_number_of_streams_is_limited(self, environment: Environment) -> None:
        async with running(environment.settings(STREAMS_MAX=2)) as backend:
            token = await token_of_new_user(backend)
            async with sse(backend.http, token=token), sse(backend.http, token=token):
                response = await backend.http.get("/events", headers=bearer(token))
                check_problem(response, 502, "too-many-streams")
                assert int(response.headers["retry-after"]) > 0
            await until(lambda: backend.services.events.stream_server.count == 0)
            async with sse(backend.http, token=token) as client:
                assert not client.ended

    async def test_disconnected_clients_are_removed(self, backend: Backend, admin: str) -> None:
        for _ in range(5):
            async with sse(backend.http, token=admin):
                assert backend.services.events.stream_server.count == 1
            await until(lambda: backend.services.events.stream_server.count == 0)
        assert len(backend.services.events.hub.feeds) == 0

    async def test_blocked_client_is_disconnected_without_delaying_others(
        self, environment: Environment
    ) -> None:
        settings = environment.settings(CLIENT_BUFFER_BYTES=256 * 1024)
        async with running(settings) as backend:
            token = await token_of_new_user(backend)
            where = urlsplit(str(backend.http.base_url))
            slow = socket.socket()
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.connect((where.hostname, where.port))
            slow.sendall(
                f"GET /events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
            )
            await until(lambda: backend.services.events.stream_server.count == 1)
            sent: list[str] = []
            async with sse(backend.http, token=token) as quick:
                for n in range(60):
                    big = shield_event("worker.started", {"n": n, "x": "x" * 200_000}, job=None)
                    sent += map(str, await environment.publish(big))
                    await quick.until(lambda it, count=n + 1: len(it.ids) == count)  # type: ignore[misc]
                # The quick client receives everything; the slow one holds at most one feed's limit.
                feed = next(iter(backend.services.events.hub.feeds))
                assert feed._bytes < 2 * 256 * 1024
            slow.settimeout(0)
            body = bytearray()

            def closed() -> bool:
                try:
                    while chunk := slow.recv(1024 * 1024):
                        body.extend(chunk)
                except BlockingIOError:
                    return False
                return True

            await until(closed)
            slow.close()
            assert b"too slow" in body
            last = re.findall(rb"id: (\d+-\d+)\n", bytes(body))[-1].decode()
            rest = sent[sent.index(last) + 1 :]
            assert rest
            async with sse(backend.http, after=last, token=token) as again:
                await again.until(lambda it: it.ids == rest)


class TestDraining:
    @pytest.fixture
    async def backend(self, environment: Environment) -> AsyncIterator[Backend]:
        async with running(environment.settings()) as instance:
            yield instance

    async def test_streams_end_with_a_retry_time_and_new_ones_are_refused(
        self, backend: Backend, admin: str, environment: Environment
    ) -> None:
        async with sse(backend.http, token=admin) as client:
            ids = await environment.publish(*run_of())
            await until(lambda: backend.services.events.hub.last_id == ids[-1])
            backend.services.events.hub.drain()
            await client.until_ended()
            assert client.ids == [str(one) for one in ids]
            assert client.frames[-1].retry
            assert 2000 <= client.frames[-1].retry <= 5000
        refused = await backend.http.get("/events", headers=bearer(admin))
        check_problem(refused, 502, "draining")
        assert refused.headers["retry-after"] == "1"
        check_problem(await backend.http.get("/health/ready"), 503, "not-ready")
        assert (await backend.http.get("/health/live")).status_code == 200


class TestOutages:
    async def test_streams_survive_a_redis_outage(
        self, environment: Environment, redis_proxy: TcpProxy
    ) -> None:
        settings = environment.settings(REDIS_URL=redis_proxy.url, SSE_KEEPALIVE_SECONDS=1)
        async with running(settings) as backend:
            admin = await token_of_new_user(backend)
            async with sse(backend.http, token=admin) as client:
                ids = await environment.publish(*run_of("a"))
                await client.until(lambda it: len(it.ids) == len(ids))
                await redis_proxy.refuse()
                ids += await environment.publish(*run_of("b"))
                await client.until(lambda it: "keep-alive" in it.comments)
                # A client that connects meanwhile sees the current state.
                async with sse(backend.http, after=ids[0], token=admin) as during:
                    await during.until(lambda it: len(it.ids) == 13)
                await redis_proxy.accept()
                await client.until(lambda it: len(it.ids) == len(ids), 15)
                assert client.ids == [str(one) for one in ids]
                assert not client.ended

    async def test_entries_trimmed_during_an_outage_come_from_postgresql(
        self, environment: Environment, redis_proxy: TcpProxy
    ) -> None:
        cut_off = environment.settings(REDIS_URL=redis_proxy.url)
        other = environment.settings(REDIS_CONSUMER_NAME="host-8003")
        async with running(cut_off) as backend, running(other):
            admin = await token_of_new_user(backend)
            async with sse(backend.http, token=admin) as client:
                ids = await environment.publish(*run_of("a"))
                await client.until(lambda it: len(it.ids) == len(ids))
                await redis_proxy.refuse()
                await until(lambda: backend.services.events.tailer.status == "waiting for Redis")
                ids += await environment.publish(*run_of("b"))
                await until(lambda: environment.has_stored(ids))
                await environment.trim(2)
                await redis_proxy.accept()
                await client.until(lambda it: len(it.ids) == len(ids), 15)
                assert client.ids == [str(one) for one in ids]

    async def test_live_streams_survive_a_postgresql_outage(
        self, environment: Environment, database_proxy: TcpProxy
    ) -> None:
        settings = environment.settings(DATABASE_URL=database_proxy.url)
        async with running(settings) as backend:
            admin = await token_of_new_user(backend)
            async with sse(backend.http, token=admin) as client:
                await database_proxy.refuse()
                ids = await environment.publish(*run_of())
                await client.until(lambda it: len(it.ids) == len(ids))
                async with sse(backend.http, after=ids[3], token=admin) as another:
                    await another.until(lambda it: len(it.ids) == len(ids) - 4)
                await database_proxy.accept()
                await until(environment.settled)
                assert await environment.stored() == ids
                assert not client.ended

    async def test_unavailable_history_ends_the_stream_without_loss(
        self, environment: Environment, database_proxy: TcpProxy
    ) -> None:
        settings = environment.settings(DATABASE_URL=database_proxy.url, RING_MAX_EVENTS=1)
        async with running(settings) as backend:
            admin = await token_of_new_user(backend)
            ids = await environment.publish(*run_of())
            await until(environment.settled)
            await environment.trim(1)
            await database_proxy.refuse()
            async with sse(backend.http, after=ids[0], token=admin) as client:
                await client.until_ended()
                assert client.ids == []
                assert "history is unavailable" in client.comments[-1]
            await database_proxy.accept()
            async with sse(backend.http, after=ids[0], token=admin) as client:
                await client.until(lambda it: it.ids == [str(one) for one in ids[1:]])
