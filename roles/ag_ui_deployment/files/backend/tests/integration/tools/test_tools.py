"""Tools over HTTP through a real gateway: arguments, ownership of jobs, and errors."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from src.models.permissions import Role
from src.services.gateway.errors import GatewayRefusedError
from src.services.litellm_client import LiteLLMClient, ToolDescription
from tests.support.accounts import bearer
from tests.support.builders import shield_event
from tests.support.environment import Environment
from tests.support.gateway import Gateway
from tests.support.problems import check_problem
from tests.support.proxy import TcpProxy
from tests.support.scripted import ScriptedServer, answer
from tests.support.server import Backend, running
from tests.support.sse import SseClient, sse
from tests.support.tools import SITE, Caller, all_announced, caller, has_ended, has_job, site
from tests.support.waiting import until


def jobs_on(client: SseClient) -> set[str]:
    found = (event.get("metadata", {}).get("job_id") for event in client.events)
    return {job_id for job_id in found if job_id}


def types_of(client: SseClient, job_id: str) -> list[str]:
    return [
        event["type"]
        for event in client.events
        if event.get("metadata", {}).get("job_id") == job_id
    ]


class TestJobs:
    async def test_job_belongs_to_the_caller_immediately(
        self, backend: Backend, carol: Caller, environment: Environment
    ) -> None:
        victor = await caller(backend, "victor")
        async with (
            sse(backend.http, token=carol.token) as hers,
            sse(backend.http, token=victor.token) as his,
        ):
            began = time.monotonic()
            response = await carol.crawl(environment)
            assert time.monotonic() - began < 2
            assert response.status_code == 202
            body = response.json()
            job_id = body["job_id"]
            assert response.headers["location"] == body["job"] == f"/api/jobs/{job_id}"
            job = (await carol.get(body["job"])).json()
            assert (job["owner_id"], job["workspace"]) == (str(carol.user.id), "default")
            assert job["kind"] == "crawl"
            async with sse(backend.http, body["events"], token=carol.token) as run:
                await run.until_ended()
            assert run.events[0]["type"] == "RUN_STARTED"
            assert run.events[-1]["type"] == "RUN_FINISHED"
            await hers.until(lambda it: "RUN_FINISHED" in types_of(it, job_id))
            assert types_of(hers, job_id).count("RUN_STARTED") == 1
            check_problem(await victor.get(body["job"]), 404, "job-not-found")
            check_problem(await victor.get(body["events"]), 404, "job-not-found")
            assert await victor.jobs() == {}
        assert jobs_on(hers) == {job_id}
        assert jobs_on(his) == set()

    async def test_ended_job_is_assigned_to_its_owner(
        self, backend: Backend, carol: Caller, environment: Environment
    ) -> None:
        """The owner may become known after the end of the job; the feed then has the whole run."""
        job_id = str(uuid4())
        await environment.publish(
            shield_event("job:started", job=job_id),
            shield_event("job:complete", {"answer": "42"}, job=job_id),
        )
        await until(environment.settled)
        async with sse(backend.http, token=carol.token) as hers:
            ids = await environment.publish(submission(job_id, carol.user.id))
            await hers.until(lambda it: str(ids[0]) in it.ids)
        assert types_of(hers, job_id)[0] == "RUN_STARTED"
        assert types_of(hers, job_id)[-1] == "RUN_FINISHED"
        await until(lambda: has_job(carol, job_id))
        async with sse(backend.http, f"/api/jobs/{job_id}/events", token=carol.token) as run:
            await run.until_ended()
        assert types_of(run, job_id)[-1] == "RUN_FINISHED"

    async def test_submission_overrides_producers(
        self, backend: Backend, carol: Caller, environment: Environment
    ) -> None:
        job_id, stranger = str(uuid4()), await caller(backend, "stranger")
        user = str(stranger.user.id)
        await environment.publish(
            shield_event("job:started", job=job_id, user=user, workspace="other")
        )
        await until(environment.settled)
        await environment.publish(submission(job_id, carol.user.id))
        await until(lambda: has_job(carol, job_id))
        assert await stranger.jobs() == {}
        assert (await carol.jobs())[job_id]["workspace"] == "default"

    async def test_document_ingestion(self, carol: Caller, environment: Environment) -> None:
        path = f"/srv/inbox/stream={environment.stream}/report.pdf"
        response = await carol.post("/api/ingest", {"file_path": path, "source_name": "Report"})
        assert response.status_code == 202
        await until(lambda: has_ended(carol, response.json()["job_id"]))
        job = (await carol.jobs())[response.json()["job_id"]]
        assert (job["kind"], job["status"]) == ("ingest", "completed")

    async def test_workspaces(
        self, backend: Backend, carol: Caller, environment: Environment
    ) -> None:
        await environment.query("INSERT INTO workspaces (name) VALUES ('alpha'), ('beta')")
        await environment.query(
            "INSERT INTO memberships (user_id, workspace, role) VALUES ($1, 'alpha', 'contributor'),"
            " ($1, 'beta', 'viewer')",
            carol.user.id,
        )
        body = {"url": site(environment), "max_pages": 2}
        response = await carol.post("/api/crawl", {**body, "workspace": "alpha"})
        assert response.status_code == 202, response.text
        job_id = response.json()["job_id"]
        await until(lambda: has_ended(carol, job_id))
        # The producer's events name another workspace.
        assert (await carol.jobs())[job_id]["workspace"] == "alpha"
        denied = await carol.post("/api/crawl", {**body, "workspace": "beta"})
        check_problem(denied, 403, "not-permitted")
        for name in ("gamma", "default2"):
            unknown = await carol.post("/api/crawl", {**body, "workspace": name})
            check_problem(unknown, 404, "no-workspace-of-yours")
        admin = await caller(backend, "admin", Role.ADMIN)
        unknown = await admin.post("/api/query", {"query": "x", "workspace": "gamma"})
        check_problem(unknown, 404, "no-workspace-of-yours")
        assert (await admin.post("/api/query", {"query": "x", "workspace": "beta"})).is_success

    async def test_job_limit_of_a_user(self, environment: Environment, gateway: Gateway) -> None:
        settings = environment.settings(**gateway.settings(), JOBS_PER_USER=3)
        async with running(settings) as backend:
            carol = await caller(backend, "carol")
            answers = await asyncio.gather(
                *(carol.crawl(environment, outcome="stuck") for _ in range(8))
            )
            assert sorted(one.status_code for one in answers) == [202] * 3 + [429] * 5
            refused = next(one for one in answers if one.status_code == 429)
            check_problem(refused, 429, "too-many-jobs")
            assert int(refused.headers["retry-after"]) > 0
            stuck = next(one.json()["job_id"] for one in answers if one.status_code == 202)
            await environment.publish(shield_event("job:failed", job=stuck))
            await until(lambda: has_ended(carol, stuck))
            assert (await carol.crawl(environment)).status_code == 202
            # Calls that start no job have no such limit.
            stored = await carol.post("/api/tools/qdrant_store", {"arguments": {"text": "x"}})
            assert stored.status_code == 200


class TestIdempotency:
    async def test_repeated_request_is_executed_once(
        self, backend: Backend, carol: Caller, environment: Environment, gateway: Gateway
    ) -> None:
        async with running(
            environment.settings(**gateway.settings(), REDIS_CONSUMER_NAME="host-8003")
        ) as other:
            elsewhere = Caller(other, carol.user)
            key, note = uuid4().hex, uuid4().hex
            answers = await asyncio.gather(
                *(who.crawl(environment, key, note=note) for who in (carol, elsewhere) * 4)
            )
            again = await elsewhere.crawl(environment, key, note=note)
        assert {one.status_code for one in (*answers, again)} == {202}
        assert len({one.json()["job_id"] for one in (*answers, again)}) == 1
        assert again.headers["location"] == answers[0].headers["location"]
        assert len(await gateway.tool_calls(note)) == 1
        reused = await carol.crawl(environment, key, note="another")
        check_problem(reused, 422, "idempotency-key-reused")
        # Keys are scoped to a user.
        victor = await caller(backend, "victor")
        assert (await victor.crawl(environment, key, note=note)).json()["job_id"] not in again.text

    async def test_call_without_effect_may_be_repeated(
        self, carol: Caller, gateway: Gateway
    ) -> None:
        key, text = uuid4().hex, f"fault=error {uuid4()}"
        body = {"arguments": {"text": text}}
        for _ in range(2):
            answer = await carol.post("/api/tools/qdrant_store", body, key)
            check_problem(answer, 422, "tool-rejected")
        assert len(await gateway.tool_calls(text)) == 2

    async def test_call_with_unknown_outcome_is_not_repeated(
        self, environment: Environment, gateway: Gateway
    ) -> None:
        settings = environment.settings(**gateway.settings(LITELLM_MCP_SERVER_ID="hasty"))
        async with running(settings) as backend:
            carol = await caller(backend, "carol")
            key, text = uuid4().hex, f"fault=slow-2 {uuid4()}"
            body = {"arguments": {"text": text}}
            answer = await carol.post("/api/tools/qdrant_store", body, key)
            problem = check_problem(answer, 504, "upstream-timeout")
            assert "GET /api/jobs" in problem["detail"]
            again = await carol.post("/api/tools/qdrant_store", body, key)
            check_problem(again, 409, "outcome-unknown")
        # Not even once, if the gateway timed out before it passed the call on.
        assert len(await gateway.tool_calls(text)) <= 1

    async def test_malformed_keys_are_refused(self, carol: Caller) -> None:
        for key in ("x" * 201, "two words", "é"):
            headers = [(b"Idempotency-Key", key.encode("latin-1"))]
            headers += [
                (name.encode(), value.encode()) for name, value in bearer(carol.token).items()
            ]
            answer = await carol.backend.http.post(
                "/api/crawl", json={"url": "https://example.org"}, headers=headers
            )
            body = check_problem(answer, 422, "invalid-request")
            assert body["errors"][0]["field"] == "header.idempotency-key"


BAD_ARGUMENTS: list[tuple[str, dict[str, Any], str]] = [
    ("/api/crawl", {}, "body.url"),
    ("/api/crawl", {"url": "ftp://example.org"}, "body.url"),
    ("/api/crawl", {"url": "https://u:p@example.org"}, "body.url"),
    ("/api/crawl", {"url": "http://127.0.0.1:8002"}, "body.url"),
    ("/api/crawl", {"url": "http://8.8.8.010"}, "body.url"),
    ("/api/crawl", {"url": "http://[::ffff:7f00:1]"}, "body.url"),
    ("/api/crawl", {"url": "http://169.254.169.254/latest"}, "body.url"),
    ("/api/crawl", {"url": "http://hx-sqldb-server:5432"}, "body.url"),
    ("/api/crawl", {"url": "https://example.org", "max_pages": 1001}, "body.max_pages"),
    ("/api/crawl", {"url": "https://example.org", "max_pages": True}, "body.max_pages"),
    ("/api/crawl", {"url": "https://example.org", "max_depth": -1}, "body.max_depth"),
    ("/api/crawl", {"url": "https://example.org", "max_depth": 11}, "body.max_depth"),
    ("/api/crawl", {"url": "https://example.org", "pages": 1}, "body.pages"),
    (
        "/api/crawl",
        {"url": "https://example.org", "allowed_domains": ["a.org", "10.0.0.1"]},
        "body.allowed_domains.1",
    ),
    ("/api/crawl", {"url": "https://example.org", "workspace": "a\0"}, "body.workspace"),
    ("/api/ingest", {"file_path": "/srv/../etc/shadow"}, "body.file_path"),
    ("/api/ingest", {"file_path": "file:///etc/shadow"}, "body.file_path"),
    ("/api/ingest", {"file_path": "a\nb"}, "body.file_path"),
    ("/api/query", {"query": "x", "mode": "mix"}, "body.mode"),
    ("/api/query", {"query": ""}, "body.query"),
    ("/api/query", {"query": "\0"}, "body.query"),
    ("/api/query", {"query": "x" * 4001}, "body.query"),
    ("/api/tools/qdrant_find", {"arguments": {"query": "x", "limit": 0}}, "body.arguments.limit"),
    ("/api/tools/qdrant_find", {"arguments": {"query": "x", "limit": True}}, "body.arguments.limit"),
    ("/api/tools/qdrant_find", {"arguments": {"query": "x", "\ud800": 0}}, "body"),
    (
        "/api/tools/qdrant_find",
        {"arguments": {"query": "x", "filter_conditions": {"a": "\ud800"}}},
        "body",
    ),
    ("/api/tools/crawl_web", {"arguments": {"url": "http://localhost"}}, "body.arguments.url"),
]  # fmt: skip


class TestCancellation:
    async def test_owner_cancels_a_running_job(
        self, backend: Backend, carol: Caller, environment: Environment
    ) -> None:
        job_id = (await carol.crawl(environment, speed="0.01")).json()["job_id"]
        await until(lambda: has_job(carol, job_id))
        path = f"/api/jobs/{job_id}/cancel"
        victor = await caller(backend, "victor", Role.CONTRIBUTOR)
        check_problem(await victor.post(path, {}), 404, "job-not-found")
        response = await carol.post(path, {})
        assert (response.status_code, response.json()["id"]) == (202, job_id)
        await until(lambda: has_ended(carol, job_id))
        assert (await carol.jobs())[job_id]["status"] == "cancelled"
        check_problem(await carol.post(path, {}), 409, "job-ended")
        recorded = await environment.query(
            "SELECT outcome, details->>'job_id' FROM audit_log "
            "WHERE target = 'tool:cancel_job' ORDER BY seq"
        )
        assert [tuple(row) for row in recorded] == [("success", job_id)]

    async def test_role_in_the_workspace_of_the_job_counts(
        self, backend: Backend, carol: Caller, environment: Environment
    ) -> None:
        await environment.query("INSERT INTO workspaces (name) VALUES ('alpha')")
        await backend.join(carol.user, "alpha", Role.VIEWER)
        job_id = str(uuid4())
        await environment.publish(
            shield_event("job:started", job=job_id, user=str(carol.user.id), workspace="alpha")
        )
        await until(lambda: has_job(carol, job_id))
        answer = await carol.post(f"/api/jobs/{job_id}/cancel", {})
        check_problem(answer, 403, "not-permitted")
        body = {"arguments": {"job_id": job_id}}
        check_problem(await carol.post("/api/tools/cancel_job", body), 403, "not-permitted")

    async def test_gateway_without_the_tool_cannot_cancel(
        self, carol: Caller, environment: Environment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def none(_client: LiteLLMClient) -> list[ToolDescription]:
            return []

        monkeypatch.setattr(LiteLLMClient, "list_tools", none)
        job_id = str(uuid4())
        await environment.publish(shield_event("job:started", job=job_id, user=str(carol.user.id)))
        await until(lambda: has_job(carol, job_id))
        check_problem(await carol.post(f"/api/jobs/{job_id}/cancel", {}), 409, "cannot-cancel")


class TestQueries:
    async def test_query_list_and_call(self, backend: Backend, carol: Caller) -> None:
        viewer = await caller(backend, "viewer", Role.VIEWER)
        answer = await viewer.post("/api/query", {"query": "what is shield?", "mode": "local"})
        assert answer.status_code == 200
        assert answer.json()["answer"].startswith("[local]")
        context = await viewer.post("/api/query", {"query": "x", "only_need_context": True})
        assert context.json()["answer"] is None

        text = f"shield {uuid4()}"
        stored = await carol.post("/api/tools/qdrant_store", {"arguments": {"text": text}})
        assert stored.status_code == 200
        found = await viewer.post(
            "/api/tools/qdrant_find", {"arguments": {"query": text, "limit": 1}}
        )
        assert found.json()["tool"] == "qdrant_find"
        assert found.json()["result"]["matches"][0]["text"] == text

        tools = {one["name"]: one for one in (await viewer.get("/api/tools")).json()["items"]}
        assert set(tools) == {"qdrant_find", "lightrag_query", "get_job_status", "health_check"}
        every = {one["name"]: one for one in (await carol.get("/api/tools")).json()["items"]}
        assert len(every) == 8
        crawl = every["crawl_web"]
        assert crawl["starts_job"]
        assert crawl["description"]
        assert crawl["input_schema"]["properties"]["max_pages"]["maximum"] == 1000
        for name in ("crawl_web", "ingest_doc", "qdrant_store"):
            denied = await viewer.post(f"/api/tools/{name}", {"arguments": {}})
            check_problem(denied, 403, "not-permitted")
        check_problem(await carol.post("/api/tools/rm", {"arguments": {}}), 404, "tool-not-found")

    async def test_job_status_is_visible_to_its_owner_only(
        self, backend: Backend, carol: Caller, environment: Environment
    ) -> None:
        job_id = (await carol.crawl(environment)).json()["job_id"]
        body = {"arguments": {"job_id": job_id}}
        mine = await carol.post("/api/tools/get_job_status", body)
        assert mine.json()["result"]["job_id"] == job_id
        victor = await caller(backend, "victor", Role.VIEWER)
        check_problem(await victor.post("/api/tools/get_job_status", body), 404, "job-not-found")

    async def test_number_of_reported_errors_is_limited(self, carol: Caller) -> None:
        unknown: dict[str, Any] = {f"unknown{number}": 0 for number in range(50)}
        for path, body in (
            ("/api/query", {"query": "x"} | unknown),
            ("/api/tools/qdrant_find", {"arguments": {"query": "x"} | unknown}),
            ("/api/tools/qdrant_find", {"arguments": {}} | unknown),
        ):
            problem = check_problem(await carol.post(path, body), 422, "invalid-request")
            (error,) = problem["errors"]
            assert "more than 50 fields" in error["message"]
        answer = await carol.post("/api/query", dict(list(unknown.items())[:40]))
        assert len(check_problem(answer, 422, "invalid-request")["errors"]) == 20

    async def test_invalid_arguments_are_not_sent(self, carol: Caller) -> None:
        for path, body, field in BAD_ARGUMENTS:
            problem = check_problem(await carol.post(path, body), 422, "invalid-request")
            assert problem["errors"][0]["field"] == field, (path, body)

    async def test_arguments_are_sent_in_canonical_form(
        self, carol: Caller, gateway: Gateway
    ) -> None:
        note = uuid4().hex
        domains = ["Bücher.Example."]
        body = {"url": f"HTTP://0x8080808:080/{note}", "allowed_domains": domains}
        assert (await carol.post("/api/crawl", body)).status_code == 202
        (call,) = await gateway.tool_calls(note)
        assert call["arguments"]["url"] == f"http://8.8.8.8:80/{note}"
        assert call["arguments"]["allowed_domains"] == ["xn--bcher-kva.example"]

    async def test_limits_of_the_settings(self, environment: Environment, gateway: Gateway) -> None:
        settings = environment.settings(
            **gateway.settings(),
            TOOLS_ALLOW_PRIVATE_ADDRESSES=True,
            TOOLS_MAX_PAGES=3,
            TOOLS_MAX_DEPTH=1,
        )
        async with running(settings) as backend:
            carol, note = await caller(backend, "carol"), uuid4().hex
            url = f"http://10.0.0.1:8080/{note}"
            for name, maximum in (("max_pages", 3), ("max_depth", 1)):
                body = {"url": url, name: maximum + 1}
                problem = check_problem(
                    await carol.post("/api/crawl", body), 422, "invalid-request"
                )
                assert problem["errors"] == [
                    {"field": f"body.{name}", "message": f"is more than {maximum}"}
                ]
            assert (await carol.post("/api/crawl", {"url": url})).status_code == 202
            (call,) = await gateway.tool_calls(note)
            # The tool's own default for an omitted argument may exceed the limit, so defaults are
            # sent.
            assert call["arguments"] == {
                "url": url,
                "max_pages": 3,
                "allowed_domains": None,
                "max_depth": 1,
            }
            tools = {one["name"]: one for one in (await carol.get("/api/tools")).json()["items"]}
            properties = tools["crawl_web"]["input_schema"]["properties"]
            assert properties["max_pages"]["maximum"] == 3
            assert properties["max_depth"]["maximum"] == 1
            scheme = await carol.post("/api/crawl", {"url": "file:///etc/passwd"})
            check_problem(scheme, 422, "invalid-request")


class TestFailures:
    async def test_tool_errors(self, carol: Caller) -> None:
        async def ask(text: str) -> httpx.Response:
            return await carol.post("/api/query", {"query": text})

        rejected = check_problem(await ask("fault=error"), 422, "tool-rejected")
        assert rejected["detail"] == "the collection does not exist"
        failed = await ask("fault=crash")
        check_problem(failed, 502, "tool-failed")
        for inside in ("hunter2", "/opt/shield", "10.0.0.5", "postgresql"):
            assert inside not in failed.text
        check_problem(await ask("fault=strange"), 502, "answer-not-understood")
        strange = await carol.post("/api/crawl", {"url": f"{SITE}?fault=strange"})
        assert "GET /api/jobs" in check_problem(strange, 502, "answer-not-understood")["detail"]

    @pytest.mark.parametrize(
        ("changes", "status", "slug"),
        [
            ({"LITELLM_URL": "http://127.0.0.1:9"}, 503, "gateway-unavailable"),
            ({"LITELLM_MCP_SERVER_ID": "dead"}, 502, "tools-unavailable"),
            ({"LITELLM_MCP_SERVER_ID": "fenced"}, 502, "gateway-refused"),
            ({"LITELLM_API_KEY": "sk-wrong"}, 502, "gateway-refused"),
            ({"LITELLM_TIMEOUT_SECONDS": 0.2}, 504, "upstream-timeout"),
        ],
    )
    async def test_gateway_errors(
        self,
        environment: Environment,
        gateway: Gateway,
        changes: dict[str, Any],
        status: int,
        slug: str,
    ) -> None:
        async with running(environment.settings(**gateway.settings(**changes))) as backend:
            carol = await caller(backend, "carol")
            answer = await carol.post("/api/query", {"query": "fault=slow-1"})
            problem = check_problem(answer, status, slug)
            if slug == "gateway-refused":
                assert "The operator must look at LITELLM_" in problem["detail"]
            else:
                assert int(answer.headers["retry-after"]) > 0
            crawled = await carol.post("/api/crawl", {"url": f"{SITE}?fault=slow-1"})
            check_problem(crawled, status, slug)
            assert await carol.jobs() == {}

    async def test_rate_limited_key(self, environment: Environment, gateway: Gateway) -> None:
        settings = environment.settings(**gateway.settings(LITELLM_API_KEY=gateway.limited_key()))
        async with running(settings) as backend:
            carol = await caller(backend, "carol")
            answers = [await carol.post("/api/query", {"query": "x"}) for _ in range(3)]
            busy = check_problem(answers[-1], 503, "gateway-busy")
            assert busy
            assert 1 <= int(answers[-1].headers["retry-after"]) <= 60

    async def test_health_reports_gateway_outage(
        self, environment: Environment, gateway: Gateway
    ) -> None:
        settings = environment.settings(
            **gateway.settings(LITELLM_URL="http://127.0.0.1:9"), BREAKER_FAILURES=2
        )
        async with running(settings) as backend:
            carol = await caller(backend, "carol")
            check_problem(await carol.get("/api/tools"), 503, "gateway-unavailable")

            async def is_down() -> bool:
                return bool((await backend.health())["checks"]["gateway"]["status"] == "down")

            # A report is cached for a second.
            await until(is_down)
            check = (await backend.health())["checks"]["gateway"]
            assert "it cannot be reached" in check["detail"]
            assert "LITELLM_URL" in check["detail"]

    async def test_calls_without_postgresql(
        self, environment: Environment, gateway: Gateway, database_proxy: TcpProxy
    ) -> None:
        settings = environment.settings(**gateway.settings(), DATABASE_URL=database_proxy.url)
        note = uuid4().hex
        async with running(settings) as backend:
            admin = await caller(backend, "admin", Role.ADMIN)
            token_is_known = await admin.post("/api/query", {"query": "x"})
            assert token_is_known.status_code == 200
            await database_proxy.refuse()
            service = backend.services.tools.service
            outcome = await service.call(admin.user, "lightrag_query", {"query": "x"})
            assert outcome.result["answer"]
            answer = await admin.crawl(environment, note=note)
            check_problem(answer, 503, "database-unavailable")
        assert await gateway.tool_calls(note) == []

    async def test_job_is_announced_after_a_redis_outage(
        self, environment: Environment, gateway: Gateway, redis_proxy: TcpProxy
    ) -> None:
        settings = environment.settings(**gateway.settings(), REDIS_URL=redis_proxy.url)
        async with running(settings) as backend:
            carol = await caller(backend, "carol")
            await redis_proxy.refuse()
            began = time.monotonic()
            answer = await carol.crawl(environment, outcome="stuck")
            assert answer.status_code == 202
            assert time.monotonic() - began < 2
            job_id = answer.json()["job_id"]
            assert job_id in await carol.jobs()
            async with sse(backend.http, token=carol.token) as hers:
                await redis_proxy.accept()
                await hers.until(lambda it: job_id in jobs_on(it), 20)
            await until(lambda: all_announced(environment))


class TestAudit:
    """Each call has an audit entry without its arguments."""

    async def test_completed_and_refused_calls_are_recorded(
        self, backend: Backend, carol: Caller, environment: Environment
    ) -> None:
        secret, key = uuid4().hex, uuid4().hex
        viewer = await caller(backend, "viewer", Role.VIEWER)
        path = f"/srv/{secret}/stream={environment.stream}/report.pdf"
        job_id = (await carol.crawl(environment, key, note=secret)).json()["job_id"]
        await carol.crawl(environment, key, note=secret)
        document = (await carol.post("/api/ingest", {"file_path": path})).json()["job_id"]
        await carol.post("/api/tools/qdrant_store", {"arguments": {"text": secret}})
        await carol.post("/api/query", {"query": f"{secret} fault=error"})
        await carol.post("/api/query", {"query": f"{secret} fault=crash"})
        await carol.post("/api/tools/qdrant_find", {"arguments": {secret: secret}})
        await carol.post("/api/tools/rm", {"arguments": {}})
        await carol.post("/api/query", {"query": secret, "workspace": "gamma"})
        await viewer.post("/api/tools/qdrant_store", {"arguments": {"text": secret}})
        entries = await audited(environment)
        assert [(name, outcome, details) for name, outcome, _, details in entries] == [
            ("tool:crawl_web", "success", {"job_id": job_id}),
            ("tool:crawl_web", "success", {"job_id": job_id, "replayed": True}),
            ("tool:ingest_doc", "success", {"job_id": document}),
            ("tool:qdrant_store", "success", {}),
            ("tool:lightrag_query", "failure", {"reason": "ToolRejected"}),
            ("tool:lightrag_query", "failure", {"reason": "ToolFailed"}),
            ("tool:qdrant_find", "failure", {"reason": "ArgumentsRefused"}),
            ("tool:unknown", "failure", {"reason": "UnknownTool"}),
            ("tool:lightrag_query", "denied", {"reason": "WorkspaceNotYours"}),
            ("tool:qdrant_store", "denied", {"reason": "NotPermitted"}),
        ]
        assert {actor for *_, actor, _ in entries} == {"carol@shield.test", "viewer@shield.test"}
        assert secret not in str(await environment.query("SELECT * FROM audit_log"))

    async def test_calls_interrupted_by_shutdown_are_recorded(
        self, environment: Environment, gateway: Gateway
    ) -> None:
        asked, stored = (f"fault=slow-20 {uuid4()}" for _ in range(2))
        async with running(environment.settings(**gateway.settings())) as backend:
            carol = await caller(backend, "carol")
            calls = [
                asyncio.create_task(carol.post("/api/query", {"query": asked})),
                asyncio.create_task(
                    carol.post("/api/tools/qdrant_store", {"arguments": {"text": stored}})
                ),
            ]
            for text in (asked, stored):
                await until(lambda text=text: gateway.tool_calls(text))  # type: ignore[misc]
        await asyncio.gather(*calls, return_exceptions=True)
        entries = await audited(environment)
        assert {(name, outcome) for name, outcome, *_ in entries} == {
            ("tool:lightrag_query", "failure"),
            ("tool:qdrant_store", "failure"),
        }
        assert [details for *_, details in entries] == [{"reason": "Cancelled"}] * 2


class TestLimits:
    async def test_concurrent_calls_of_a_user_are_limited(
        self, environment: Environment, gateway: Gateway
    ) -> None:
        settings = environment.settings(**gateway.settings(), CALLS_PER_USER=2)
        async with running(settings) as backend:
            carol, victor = await caller(backend, "carol"), await caller(backend, "victor")
            text = f"fault=slow-2 {uuid4()}"
            asked = asyncio.create_task(carol.post("/api/query", {"query": text}))
            stored = asyncio.create_task(
                carol.post("/api/tools/qdrant_store", {"arguments": {"text": text}})
            )
            await until(lambda: _arrived(gateway, text, 2))
            for path, body in (
                ("/api/query", {"query": "x"}),
                ("/api/crawl", {"url": SITE}),
            ):
                refused = await carol.post(path, body)
                check_problem(refused, 429, "too-many-calls")
                assert int(refused.headers["retry-after"]) > 0
            assert (await victor.post("/api/query", {"query": "x"})).status_code == 200
            assert {(await call).status_code for call in (asked, stored)} == {200}
            assert (await carol.post("/api/query", {"query": "x"})).status_code == 200

    async def test_concurrent_requests_share_a_failed_list(self, environment: Environment) -> None:
        path = "/mcp-rest/tools/list"
        async with ScriptedServer() as server:
            server.gate.clear()
            server.answers(path, answer(401, {"detail": "no"}), answer(200, {"tools": []}))
            async with running(environment.settings(LITELLM_URL=server.url)) as backend:
                carol = await caller(backend, "carol")
                service = backend.services.tools.service
                asking = [asyncio.create_task(service.available(carol.user)) for _ in range(5)]
                # Cancelling one request does not cancel the shared one.
                await until(lambda: server.asked)
                asking.pop(0).cancel()
                server.gate.set()
                answers = await asyncio.gather(*asking, return_exceptions=True)
                assert {type(one) for one in answers} == {GatewayRefusedError}
                assert server.asked == [path]
                # A failure is not cached, a result is.
                assert (await carol.get("/api/tools")).json() == {"items": [], "next_cursor": None}
                assert (await carol.get("/api/tools")).json() == {"items": [], "next_cursor": None}
                assert server.asked == [path] * 2


async def _arrived(gateway: Gateway, text: str, number: int) -> bool:
    return len(await gateway.tool_calls(text)) == number


async def audited(environment: Environment) -> list[tuple[str, str, str, dict[str, Any]]]:
    """Return target, outcome, actor and details of each tool call, without the workspace."""
    rows = await environment.query(
        "SELECT target, outcome, actor, details FROM audit_log WHERE action = 'tool.call'"
        " ORDER BY seq"
    )
    entries = [(*row[:3], json.loads(row[3])) for row in rows]
    assert all(details.pop("workspace") for *_, details in entries)
    return entries


class TestSilentJobs:
    @pytest.fixture
    async def backend(self, environment: Environment, gateway: Gateway) -> AsyncIterator[Backend]:
        settings = environment.settings(**gateway.settings(), JOB_SILENT_SECONDS=1, JOBS_PER_USER=2)
        async with running(settings) as instance:
            yield instance

    async def test_state_comes_from_the_orchestrator(
        self, carol: Caller, environment: Environment
    ) -> None:
        silent = (await carol.crawl(environment, outcome="silent")).json()["job_id"]
        vanished = (await carol.crawl(environment, outcome="vanished")).json()["job_id"]
        await until(lambda: _shows(carol, silent, status="completed", percent=100.0))
        await until(lambda: _shows(carol, vanished, lost=True, status="running"))
        job = (await carol.get(f"/api/jobs/{silent}")).json()
        assert job["completed_at"]
        assert not job["lost"]
        # It is not stored as an end, but no longer counts towards the limit.
        stored = await environment.query("SELECT status FROM jobs WHERE completed_at IS NULL")
        assert len(stored) == 2
        assert (await carol.crawl(environment)).status_code == 202

    async def test_lost_jobs_do_not_count_towards_the_limit(
        self, carol: Caller, environment: Environment
    ) -> None:
        lost = [f"lost-{number}" for number in range(7)]
        owner = {"user_id": str(carol.user.id)}
        await environment.publish(*(shield_event(job=job, metadata=owner) for job in lost))
        await until(environment.settled)
        await environment.query("UPDATE jobs SET updated_at = now() - interval '1 hour'")
        answers = [await carol.crawl(environment, outcome="stuck") for _ in range(4)]
        assert [answer.status_code for answer in answers] == [202, 202, 429, 429]

    async def test_list_is_fast_without_the_orchestrator(
        self, environment: Environment, gateway: Gateway, backend: Backend, carol: Caller
    ) -> None:
        ids = {(await carol.crawl(environment, outcome="stuck")).json()["job_id"] for _ in range(2)}
        await environment.query("UPDATE jobs SET updated_at = updated_at - interval '1 minute'")
        async with TcpProxy(gateway.orchestrator_url, 80) as proxy:
            proxy.freeze()
            changes = {"ORCHESTRATOR_URL": proxy.url, "BREAKER_FAILURES": 2}
            async with running(backend.settings.model_copy(update=changes)) as other:
                elsewhere = Caller(other, carol.user)

                async def gave_up() -> bool:
                    began = time.monotonic()
                    assert set(await elsewhere.jobs()) == ids
                    assert time.monotonic() - began < 3
                    body = await other.health()
                    assert body["status"] == "healthy"
                    check = body["checks"]["orchestrator"]
                    return bool(check["status"] == "down" and "does not answer" in check["detail"])

                await until(gave_up)


async def _shows(who: Caller, job_id: str, **values: Any) -> bool:
    job = (await who.jobs())[job_id]
    return all(job[name] == value for name, value in values.items())


def submission(job_id: str, owner: UUID) -> Any:
    return shield_event("job:accepted", job=job_id, user=str(owner), workspace="default")
