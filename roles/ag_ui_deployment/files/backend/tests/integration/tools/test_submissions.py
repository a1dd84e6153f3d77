"""Writing calls: what is stored of them despite failures, and for how long."""

import asyncio
import os
import signal
from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest

from src.models.submission import SubmissionState
from src.services.tools import submissions as tool_submissions
from src.services.tools.ssrf_guard import SsrfGuard
from src.utils.hosts import TargetRefusedError
from tests.support.accounts import bearer
from tests.support.builders import shield_event
from tests.support.cli import cli_environment, served
from tests.support.environment import Environment
from tests.support.gateway import Gateway
from tests.support.problems import check_problem
from tests.support.proxy import TcpProxy
from tests.support.scripted import ScriptedServer, tool_result
from tests.support.server import running
from tests.support.tools import SITE, Caller, all_announced, caller, has_job, site
from tests.support.waiting import until

STORE = "/api/tools/qdrant_store"
CALL = "/mcp-rest/tools/call"


async def states(environment: Environment) -> list[str]:
    return [row[0] for row in await environment.query("SELECT state FROM submissions")]


async def age(environment: Environment, **time: int) -> None:
    await environment.query(
        "UPDATE submissions SET created_at = created_at - $1::interval", timedelta(**time)
    )


async def announced(environment: Environment) -> list[dict[bytes, bytes]]:
    entries: Any = await environment.redis.xrange(environment.stream)
    return [fields for _, fields in entries if fields[b"type"] == b"job:accepted"]


class TestOutages:
    async def test_accepted_job_is_stored_after_an_outage(
        self,
        environment: Environment,
        gateway: Gateway,
        redis_proxy: TcpProxy,
        database_proxy: TcpProxy,
    ) -> None:
        settings = environment.settings(
            **gateway.settings(), REDIS_URL=redis_proxy.url, DATABASE_URL=database_proxy.url
        )
        async with running(settings) as backend:
            carol, key, note = await caller(backend, "carol"), uuid4().hex, uuid4().hex
            marks = {"fault": "slow-1", "outcome": "stuck", "note": note}
            crawling = asyncio.create_task(carol.crawl(environment, key, **marks))
            await until(lambda: gateway.tool_calls(note))
            await redis_proxy.refuse()
            await database_proxy.refuse()
            accepted = await crawling
            assert accepted.status_code == 202
            await redis_proxy.accept()
            await database_proxy.accept()
            await until(lambda: _states_are(environment, SubmissionState.DONE), 20)
            again = await carol.crawl(environment, key, **marks)
            assert (again.status_code, again.json()) == (202, accepted.json())
            assert await has_job(carol, accepted.json()["job_id"])
            await until(lambda: all_announced(environment), 20)
            assert len(await announced(environment)) == 1
        assert len(await gateway.tool_calls(note)) == 1

    async def test_job_is_announced_without_postgresql(
        self, environment: Environment, gateway: Gateway, database_proxy: TcpProxy
    ) -> None:
        settings = environment.settings(**gateway.settings(), DATABASE_URL=database_proxy.url)
        async with running(settings) as backend:
            carol, note = await caller(backend, "carol"), uuid4().hex
            crawling = asyncio.create_task(carol.crawl(environment, fault="slow-1", note=note))
            await until(lambda: gateway.tool_calls(note))
            await database_proxy.refuse()
            accepted = await crawling
            assert accepted.status_code == 202
            (event,) = await announced(environment)
            assert event[b"job_id"].decode() == accepted.json()["job_id"]

    async def test_shutdown_does_not_wait_for_postgresql(
        self,
        environment: Environment,
        gateway: Gateway,
        database_proxy: TcpProxy,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        settings = environment.settings(**gateway.settings(), DATABASE_URL=database_proxy.url)
        async with running(settings) as backend:
            carol, text = await caller(backend, "carol"), f"fault=slow-1 {uuid4()}"
            storing = asyncio.create_task(carol.post(STORE, {"arguments": {"text": text}}))
            await until(lambda: gateway.tool_calls(text))
            await database_proxy.refuse()
            assert (await storing).status_code == 200
        assert await states(environment) == [SubmissionState.SENT]
        output = capsys.readouterr().out
        assert "submission_not_kept" in output
        assert "background_jobs_cut" not in output

    async def test_call_of_a_killed_instance_has_an_unknown_outcome(
        self, environment: Environment, gateway: Gateway, carol: Caller
    ) -> None:
        key, note = uuid4().hex, uuid4().hex
        env = cli_environment(environment, **gateway.settings(), REDIS_CONSUMER_NAME="host-8003")
        body = {"url": site(environment, fault="slow-5", note=note)}
        async with served(env) as (process, http):
            headers = bearer(carol.token) | {"Idempotency-Key": key}
            crawling = asyncio.create_task(http.post("/api/crawl", json=body, headers=headers))
            await until(lambda: gateway.tool_calls(note))
            os.kill(process.pid, signal.SIGKILL)
            with pytest.raises(httpx.TransportError):
                await crawling
            await process.wait()
        assert await states(environment) == [SubmissionState.SENT]
        # After the maximum duration of a call.
        await age(environment, minutes=2)
        problem = check_problem(await carol.post("/api/crawl", body, key), 409, "outcome-unknown")
        assert "take a new key" in problem["detail"]
        assert len(await gateway.tool_calls(note)) == 1


class TestIdempotencyKeys:
    async def test_wait_for_a_running_call_is_limited(
        self,
        environment: Environment,
        gateway: Gateway,
        carol: Caller,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(tool_submissions, "_REPEATED_CALL_TIMEOUT", 0.2)
        key, note = uuid4().hex, uuid4().hex
        marks = {"fault": "slow-2", "note": note}
        first = asyncio.create_task(carol.crawl(environment, key, **marks))
        await until(lambda: gateway.tool_calls(note))
        second = await carol.crawl(environment, key, **marks)
        check_problem(second, 409, "still-running")
        assert int(second.headers["retry-after"]) > 0
        answered = (await first).json()
        assert (await carol.crawl(environment, key, **marks)).json() == answered
        assert len(await gateway.tool_calls(note)) == 1

    async def test_first_response_is_repeated_without_new_checks(
        self, environment: Environment, carol: Caller, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def too_slow(*_: Any) -> None:
            raise TargetRefusedError("cannot be looked up in time; try again")

        first = (await carol.crawl(environment, "key")).json()
        monkeypatch.setattr(SsrfGuard, "check_url", too_slow)
        assert (await carol.crawl(environment, "key")).json() == first
        for key in ("another", None):
            refused = check_problem(await carol.crawl(environment, key), 422, "invalid-request")
            assert refused["errors"][0]["field"] == "body.url"
        assert await states(environment) == [SubmissionState.DONE]

    async def test_key_is_valid_for_a_day(
        self, environment: Environment, gateway: Gateway, carol: Caller
    ) -> None:
        key, note = uuid4().hex, uuid4().hex
        first = (await carol.crawl(environment, key, note=note)).json()["job_id"]
        await age(environment, hours=23, minutes=59)
        assert (await carol.crawl(environment, key, note=note)).json()["job_id"] == first
        await age(environment, minutes=2)
        assert (await carol.crawl(environment, key, note=note)).json()["job_id"] != first
        assert len(await gateway.tool_calls(note)) == 2

    async def test_expired_keys_are_deleted(
        self, environment: Environment, gateway: Gateway, carol: Caller
    ) -> None:
        await carol.crawl(environment, "old")
        await age(environment, hours=24, minutes=1)
        await carol.crawl(environment, "new")
        # An instance deletes expired ones at its start and periodically.
        settings = environment.settings(**gateway.settings(), REDIS_CONSUMER_NAME="host-8003")
        async with running(settings):
            await until(lambda: _keys_are(environment, "new"))


class TestLimits:
    async def test_only_jobs_count_towards_the_job_limit(
        self, environment: Environment, gateway: Gateway
    ) -> None:
        settings = environment.settings(**gateway.settings(), JOBS_PER_USER=1)
        async with running(settings) as backend:
            carol, text = await caller(backend, "carol"), f"fault=slow-1 {uuid4()}"
            storing = asyncio.create_task(carol.post(STORE, {"arguments": {"text": text}}))
            await until(lambda: gateway.tool_calls(text))
            assert (await carol.crawl(environment, outcome="stuck")).status_code == 202
            problem = check_problem(await carol.crawl(environment), 429, "too-many-jobs")
            assert "status=queued" in problem["detail"]
            assert (await storing).status_code == 200

    async def test_unanswered_call_counts_for_a_limited_time(
        self, environment: Environment, gateway: Gateway
    ) -> None:
        hasty = gateway.settings(LITELLM_MCP_SERVER_ID="hasty")
        async with running(environment.settings(**hasty, JOBS_PER_USER=1)) as backend:
            carol = await caller(backend, "carol")
            check_problem(await carol.crawl(environment, fault="slow-2"), 504, "upstream-timeout")
            check_problem(await carol.crawl(environment), 429, "too-many-jobs")
            await age(environment, minutes=11)
            assert (await carol.crawl(environment)).status_code == 202

    async def test_orchestrator_is_asked_without_a_lock(
        self, environment: Environment, gateway: Gateway
    ) -> None:
        """A user at the job limit can still do everything else meanwhile."""
        async with ScriptedServer() as orchestrator:
            orchestrator.gate.clear()
            settings = environment.settings(
                **gateway.settings(ORCHESTRATOR_URL=orchestrator.url), JOBS_PER_USER=1
            )
            async with running(settings) as backend:
                carol = await caller(backend, "carol")
                assert (await carol.crawl(environment, outcome="stuck")).status_code == 202
                await until(environment.settled)
                await environment.query(
                    "UPDATE jobs SET updated_at = updated_at - interval '1 hour'"
                )
                waiting = asyncio.create_task(carol.crawl(environment))
                await until(lambda: orchestrator.asked)
                locks = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND database = ("
                locks += "SELECT oid FROM pg_database WHERE datname = current_database())"
                assert await environment.query(locks) == []
                check_problem(await waiting, 429, "too-many-jobs")


class TestOwners:
    async def test_job_keeps_its_first_owner(self, environment: Environment) -> None:
        """A tool may return an existing job when the same request is repeated."""
        job_id = str(uuid4())
        async with ScriptedServer() as server:
            server.answers(CALL, tool_result({"status": "accepted", "job_id": job_id}))
            async with running(environment.settings(LITELLM_URL=server.url)) as backend:
                carol, victor = await caller(backend, "carol"), await caller(backend, "victor")
                for who in (carol, victor, carol):
                    answer = await who.post("/api/crawl", {"url": SITE})
                    assert (answer.status_code, answer.json()["job_id"]) == (202, job_id)
                await until(environment.settled)
                # Also if only the stored events say whom the job was accepted for.
                await environment.query("DELETE FROM submissions")
                await victor.post("/api/crawl", {"url": SITE})
                await until(environment.settled)
                assert set(await carol.jobs()) == {job_id}
                for path in (f"/api/jobs/{job_id}", f"/api/jobs/{job_id}/events"):
                    check_problem(await victor.get(path), 404, "job-not-found")

    async def test_submission_without_owner_changes_nothing(
        self, environment: Environment, carol: Caller
    ) -> None:
        job_id = (await carol.crawl(environment, outcome="stuck")).json()["job_id"]
        # In a separate batch.
        await until(environment.settled)
        await environment.publish(shield_event("job:accepted", job=job_id))
        await until(environment.settled)
        assert (await carol.jobs())[job_id]["workspace"] == "default"


async def _states_are(environment: Environment, state: SubmissionState) -> bool:
    return await states(environment) == [state]


async def _keys_are(environment: Environment, *keys: str) -> bool:
    return [row[0] for row in await environment.query("SELECT key FROM submissions")] == list(keys)
