"""The HTTP API without streams: accounts, jobs, errors, documents."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from src import __version__
from src.models.permissions import Role
from src.models.user import User
from src.utils.pagination import encode_cursor
from tests.support.accounts import bearer
from tests.support.builders import JOB, shield_event
from tests.support.environment import Environment
from tests.support.problems import PROBLEM, check_problem
from tests.support.proxy import TcpProxy
from tests.support.server import PASSWORD, Backend, running
from tests.support.waiting import until


async def log_in(backend: Backend, email: str, password: str = PASSWORD) -> httpx.Response:
    form = {"username": email, "password": password}
    return await backend.http.post("/auth/token", data=form)


@pytest.fixture
async def alice(backend: Backend) -> User:
    return await backend.add_user("alice@shield.test")


@pytest.fixture
async def admin(backend: Backend) -> User:
    return await backend.add_user("admin@shield.test", Role.ADMIN)


class TestAccounts:
    async def test_login_and_own_profile(self, backend: Backend, alice: User) -> None:
        response = await log_in(backend, " Alice@Shield.TEST ")
        assert response.status_code == 200
        assert response.headers["cache-control"] == "no-store"
        token = response.json()
        assert (token["token_type"], token["expires_in"]) == ("bearer", 1800)
        me = await backend.http.get("/auth/me", headers=bearer(token["access_token"]))
        assert me.json() == {
            "id": str(alice.id),
            "email": "alice@shield.test",
            "role": "viewer",
            "memberships": [],
        }

    async def test_hash_is_argon2id_and_never_returned(
        self, backend: Backend, alice: User, environment: Environment
    ) -> None:
        ((hashed,),) = await environment.query("SELECT password_hash FROM users")
        assert hashed.startswith("$argon2id$")
        me = await backend.http.get("/auth/me", headers=bearer(backend.token_of(alice)))
        assert "argon2" not in me.text

    async def test_wrong_password_and_unknown_user_have_equal_responses(
        self, backend: Backend, alice: User
    ) -> None:
        wrong = await log_in(backend, alice.email, PASSWORD + "!")
        unknown = await log_in(backend, "nobody@shield.test")
        no_address = await log_in(backend, "no address at all")
        long = await log_in(backend, alice.email, "x" * 2000)
        bodies = []
        for response in (wrong, unknown, no_address, long):
            body = check_problem(response, 401, "wrong-credentials")
            del body["request_id"]
            bodies.append(body)
            assert response.headers["www-authenticate"] == "Bearer"
        assert all(body == bodies[0] for body in bodies)

    async def test_inactive_user_is_refused_immediately(
        self, backend: Backend, alice: User, environment: Environment
    ) -> None:
        token = (await log_in(backend, alice.email)).json()["access_token"]
        await environment.query("UPDATE users SET active = false")
        check_problem(await log_in(backend, alice.email), 401, "wrong-credentials")
        me = await backend.http.get("/auth/me", headers=bearer(token))
        check_problem(me, 401, "not-authenticated")

    async def test_new_role_applies_to_old_tokens(
        self, backend: Backend, alice: User, environment: Environment
    ) -> None:
        token = backend.token_of(alice)
        await environment.query("UPDATE users SET role = 'admin'")
        me = await backend.http.get("/auth/me", headers=bearer(token))
        assert me.json()["role"] == "admin"

    @pytest.mark.parametrize(
        "header", ["", "Bearer", "Bearer a.b.c", "Basic YTpi", "bearer \u00fc"]
    )
    async def test_invalid_token_is_refused(self, backend: Backend, header: str) -> None:
        headers = [(b"Authorization", header.encode("latin-1"))]
        for path in ("/auth/me", "/api/jobs", f"/api/jobs/{JOB}", "/events"):
            response = await backend.http.get(path, headers=headers)
            check_problem(response, 401, "not-authenticated")
            assert response.headers["www-authenticate"] == "Bearer"

    async def test_other_key_and_expired_token_are_refused(
        self, backend: Backend, alice: User
    ) -> None:
        for change in (
            {"JWT_SECRET": type(backend.settings.JWT_SECRET)("another secret, long enough!!!!!!")},
            {"ACCESS_TOKEN_EXPIRE_MINUTES": -1},
        ):
            token = backend.token_of(alice, **change)
            me = await backend.http.get("/auth/me", headers=bearer(token))
            check_problem(me, 401, "not-authenticated")

    async def test_token_in_the_query_is_ignored(self, backend: Backend, alice: User) -> None:
        token = backend.token_of(alice)
        response = await backend.http.get(f"/auth/me?access_token={token}&token={token}")
        check_problem(response, 401, "not-authenticated")

    @pytest.mark.parametrize("form", [{}, {"username": "a"}, {"password": "b"}])
    async def test_incomplete_form_is_reported_without_its_content(
        self, backend: Backend, form: dict[str, str]
    ) -> None:
        response = await backend.http.post("/auth/token", data={**form, "x": "hunter2"})
        body = check_problem(response, 422, "invalid-request")
        missing = {"username", "password"} - set(form)
        assert {error["field"].split(".")[-1] for error in body["errors"]} == missing
        assert "hunter2" not in response.text

    async def test_json_instead_of_the_form_is_refused(self, backend: Backend) -> None:
        response = await backend.http.post(
            "/auth/token", json={"username": "a", "password": "hunter2"}
        )
        check_problem(response, 422, "invalid-request")
        assert "hunter2" not in response.text


def job_events(job: str, owner: User | None, *kinds: str, at: int = 1_700_000_000_000) -> list[Any]:
    user = str(owner.id) if owner else None
    return [
        shield_event(kind, {"job_type": "crawl"}, job=job, user=user, timestamp=at + step * 1000)
        for step, kind in enumerate(kinds)
    ]


class TestJobs:
    async def test_job_details(
        self, backend: Backend, alice: User, environment: Environment
    ) -> None:
        await environment.publish(
            *job_events(JOB, alice, "job:queued"),
            shield_event(
                "job:started", {"url": "https://example.org/"}, timestamp=1_700_000_001_000
            ),
            shield_event("job:complete", {"pages": 3, "none": None}, timestamp=1_700_000_009_000),
        )
        await until(environment.settled)
        headers = bearer(backend.token_of(alice))
        response = await backend.http.get(f"/api/jobs/{JOB}", headers=headers)
        assert response.json() == {
            "id": JOB,
            "owner_id": str(alice.id),
            "owner_name": alice.email,
            "workspace": None,
            "kind": "crawl",
            "subject": "https://example.org/",
            "status": "completed",
            "percent": 100.0,
            "error": None,
            "result": {"pages": 3, "none": None},
            "created_at": "2023-11-14T22:13:20Z",
            "updated_at": "2023-11-14T22:13:29Z",
            "completed_at": "2023-11-14T22:13:29Z",
            "lost": False,
        }
        listed = await backend.http.get("/api/jobs", headers=headers)
        assert listed.json() == {"items": [response.json()], "next_cursor": None}

    async def test_invisible_jobs_equal_unknown_ones(
        self, backend: Backend, alice: User, admin: User, environment: Environment
    ) -> None:
        bob = await backend.add_user("bob@shield.test", Role.CONTRIBUTOR)
        await environment.publish(
            *job_events("of-alice", alice, "job:queued"),
            *job_events("of-bob", bob, "job:queued"),
            *job_events("of-nobody", None, "job:queued"),
        )
        await until(environment.settled)
        visible = {
            alice: {"of-alice"},
            bob: {"of-bob"},
            admin: {"of-alice", "of-bob", "of-nobody"},
        }
        for user, mine in visible.items():
            headers = bearer(backend.token_of(user))
            page = (await backend.http.get("/api/jobs", headers=headers)).json()
            assert {job["id"] for job in page["items"]} == mine
            for job in ("of-alice", "of-bob", "of-nobody"):
                for suffix in ("", "/events", "/history"):
                    path = f"/api/jobs/{job}{suffix}"
                    if job in mine:
                        continue
                    answer = await backend.http.get(path, headers=headers)
                    theirs = check_problem(answer, 404, "job-not-found")
                    none = await backend.http.get(path.replace(job, str(uuid4())), headers=headers)
                    nothing = check_problem(none, 404, "job-not-found")
                    del theirs["request_id"], nothing["request_id"]
                    assert theirs == nothing

    async def test_workspace_visibility_of_members_and_administrators(
        self, backend: Backend, alice: User, admin: User, environment: Environment
    ) -> None:
        bob = await backend.add_user("bob@shield.test", Role.CONTRIBUTOR)
        await backend.join(alice, "red", Role.VIEWER)
        await backend.join(bob, "red", Role.ADMIN)
        jobs = {
            "of-alice": (alice, None),
            "of-alice-in-red": (alice, "red"),
            "of-alice-in-blue": (alice, "blue"),
            "of-bob": (bob, "default"),
            "of-nobody-in-red": (None, "red"),
        }
        await environment.publish(
            *(
                shield_event(
                    "job:queued",
                    job=job,
                    user=str(owner.id) if owner else None,
                    workspace=workspace,
                )
                for job, (owner, workspace) in jobs.items()
            )
        )
        await until(environment.settled)
        visible = {
            alice: {"of-alice", "of-alice-in-red"},
            bob: {"of-bob", "of-alice-in-red", "of-nobody-in-red"},
            admin: set(jobs),
        }
        for user, shown in visible.items():
            headers = bearer(backend.token_of(user))
            for workspace in (None, "red", "default", "blue", "nowhere"):
                query = {"workspace": workspace} if workspace else {}
                page = await backend.http.get("/api/jobs", headers=headers, params=query)
                assert {job["id"] for job in page.json()["items"]} == {
                    job for job in shown if workspace in (None, jobs[job][1] or "default")
                }
            for job in jobs:
                answer = await backend.http.get(f"/api/jobs/{job}", headers=headers)
                assert answer.status_code == (200 if job in shown else 404)
                async with backend.http.stream(
                    "GET", f"/api/jobs/{job}/events", headers=headers
                ) as run:
                    assert run.status_code == (200 if job in shown else 404)

    async def test_pages_contain_every_job_once_newest_first(
        self, backend: Backend, alice: User, environment: Environment
    ) -> None:
        # Several jobs have the same timestamp, so that only the id orders them.
        for n in range(23):
            await environment.publish(
                *job_events(f"job-{n:02}", alice, "job:queued", at=1_700_000_000_000 + n // 4)
            )
        await until(environment.settled)
        headers = bearer(backend.token_of(alice))
        found: list[str] = []
        cursor: str | None = ""
        while cursor is not None:
            params = {"limit": "5", "cursor": cursor}
            page = (await backend.http.get("/api/jobs", headers=headers, params=params)).json()
            found += [job["id"] for job in page["items"]]
            cursor = page["next_cursor"]
        assert found == [f"job-{n:02}" for n in reversed(range(23))]

    async def test_filter_by_status(
        self, backend: Backend, alice: User, environment: Environment
    ) -> None:
        await environment.publish(
            *job_events("a", alice, "job:queued"),
            *job_events("b", alice, "job:queued", "job:started"),
            *job_events("c", alice, "job:queued", "job:complete"),
            *job_events("d", alice, "job:failed"),
            *job_events("e", alice, "job:cancelled"),
        )
        await until(environment.settled)
        headers = bearer(backend.token_of(alice))
        for status, job in zip(
            ("queued", "running", "completed", "failed", "cancelled"), "abcde", strict=True
        ):
            page = await backend.http.get(f"/api/jobs?status={status}", headers=headers)
            assert [one["id"] for one in page.json()["items"]] == [job]

    async def test_filters_apply_to_pages_and_counts(
        self, backend: Backend, alice: User, admin: User, environment: Environment
    ) -> None:
        bob = await backend.add_user("bob@shield.test", Role.CONTRIBUTOR)
        await environment.publish(
            *job_events("a", alice, "job:queued", at=1_700_000_000_000),
            *job_events("b", alice, "job:queued", "job:started", at=1_700_000_010_000),
            *job_events("c", bob, "job:queued", "job:complete", at=1_700_000_020_000),
            shield_event(
                "ingestion.queued", job="d", user=str(bob.id), timestamp=1_700_000_030_000
            ),
        )
        await until(environment.settled)
        expected = {
            "": ("dcba", {"queued": 2, "running": 1, "completed": 1}),
            "kind=crawl": ("cba", {"queued": 1, "running": 1, "completed": 1}),
            f"owner={bob.id}": ("dc", {"queued": 1, "completed": 1}),
            "since=2023-11-14T22:13:30Z": ("dcb", {"queued": 1, "running": 1, "completed": 1}),
            "until=2023-11-14T23:13:40%2B01:00": ("ba", {"queued": 1, "running": 1}),
            f"owner={alice.id}&kind=ingest": ("", {}),
            "workspace=red": ("", {}),
        }
        headers = bearer(backend.token_of(admin))
        for query, (jobs, counts) in expected.items():
            page = (await backend.http.get(f"/api/jobs?{query}", headers=headers)).json()
            assert "".join(one["id"] for one in page["items"]) == jobs, query
            counted = (await backend.http.get(f"/api/jobs/counts?{query}", headers=headers)).json()
            assert {state: number for state, number in counted.items() if number} == counts
        # Nobody else's jobs, whatever the filter says.
        mine = bearer(backend.token_of(alice))
        page = (await backend.http.get(f"/api/jobs?owner={bob.id}", headers=mine)).json()
        assert page["items"] == []
        counted = (await backend.http.get("/api/jobs/counts", headers=mine)).json()
        assert counted == {"queued": 1, "running": 1, "completed": 0, "failed": 0, "cancelled": 0}

    async def test_history_has_the_events_as_published_oldest_first(
        self, backend: Backend, alice: User, environment: Environment
    ) -> None:
        data = [{"n": n, "nul": "\0", "text": "x" * 700_000} for n in range(7)]
        events = [
            shield_event("rag:chunk_processed", one, job=JOB, user=str(alice.id)) for one in data
        ]
        await environment.publish(*events, shield_event(job="another", user=str(alice.id)))
        await until(environment.settled)
        headers = bearer(backend.token_of(alice))
        found: list[Any] = []
        sizes: list[int] = []
        cursor: str | None = ""
        while cursor is not None:
            page = await backend.http.get(
                f"/api/jobs/{JOB}/history", headers=headers, params={"limit": 6, "cursor": cursor}
            )
            found += page.json()["items"]
            sizes.append(len(page.json()["items"]))
            cursor = page.json()["next_cursor"]
        # By size, although the limit allows six.
        assert sizes == [5, 2]
        assert [one["data"] for one in found] == data
        assert [one["event_id"] for one in found] == [event.event_id for event in events]
        assert found[0]["type"] == "rag:chunk_processed"
        assert found[0]["metadata"]["user_id"] == str(alice.id)
        wrong = await backend.http.get(
            f"/api/jobs/{JOB}/history", headers=headers, params={"cursor": "am9icw=="}
        )
        check_problem(wrong, 400, "bad-cursor")

    @pytest.mark.parametrize(
        "query",
        [
            *("limit=0", "limit=201", "limit=x", "status=lost", "limit=-1"),
            *("owner=alice", "kind=", "kind=%00", "since=yesterday", "until=2026-01-01T00:00:00"),
        ],
    )
    async def test_invalid_parameters_are_reported(
        self, backend: Backend, alice: User, query: str
    ) -> None:
        headers = bearer(backend.token_of(alice))
        response = await backend.http.get(f"/api/jobs?{query}", headers=headers)
        (error,) = check_problem(response, 422, "invalid-request")["errors"]
        assert error["field"] == f"query.{query.partition('=')[0]}"

    @pytest.mark.parametrize(
        "cursor",
        [
            "x",
            "%C3%BC",
            "AAAA",
            "MjAyNQ==",
            encode_cursor("accounts", "alice@shield.test"),
            encode_cursor("jobs", "2025"),
            # Without an offset.
            encode_cursor("jobs", "2025-01-01T00:00:00", "a"),
            encode_cursor("jobs", "0001-01-01T00:00:00+14:00", "a"),
            encode_cursor("jobs", "2025-01-01T00:00:00+00:00", "\0"),
        ],
    )
    async def test_unknown_cursor_is_refused(
        self, backend: Backend, alice: User, cursor: str
    ) -> None:
        headers = bearer(backend.token_of(alice))
        response = await backend.http.get(f"/api/jobs?cursor={cursor}", headers=headers)
        problem = check_problem(response, 400, "bad-cursor")
        assert [error["field"] for error in problem["errors"]] == ["query.cursor"]
        assert "next_cursor" in problem["detail"]

    @pytest.mark.parametrize("job", ["%00", "a%00b", "%0A", "x" * 201, "%FF", "..%2Fetc"])
    async def test_impossible_job_ids(self, backend: Backend, alice: User, job: str) -> None:
        for path in (f"/api/jobs/{job}", f"/api/jobs/{job}/events"):
            response = await backend.http.get(path, headers=bearer(backend.token_of(alice)))
            assert response.status_code in {404, 422}
            assert response.headers["content-type"] == PROBLEM


class TestErrors:
    @pytest.mark.parametrize("path", ["/nothing", "/api", "/api/jobs/a/b/c", "/auth/", "/docs/x"])
    async def test_unknown_path(self, backend: Backend, path: str) -> None:
        check_problem(await backend.http.get(path), 404, "not-found")

    async def test_unsupported_method(self, backend: Backend) -> None:
        for method, path in (("GET", "/auth/token"), ("POST", "/api/jobs"), ("PUT", "/health")):
            response = await backend.http.request(method, path)
            check_problem(response, 405, "method-not-allowed")
            assert response.headers["allow"]

    async def test_body_with_too_large_content_length(
        self, backend: Backend, environment: Environment
    ) -> None:
        response = await backend.http.post("/auth/token", content=b"x" * (1024 * 1024 + 1))
        check_problem(response, 413, "body-too-large")
        assert await environment.query("SELECT * FROM users") == []

    async def test_chunked_body_above_the_limit(self, backend: Backend) -> None:
        async def body() -> AsyncIterator[bytes]:
            for _ in range(40):
                yield b"username=" + b"x" * 65_536

        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        response = await backend.http.post("/auth/token", content=body(), headers=headers)
        check_problem(response, 413, "body-too-large")

    @pytest.mark.parametrize("sent", ["abc-1234", "A.b_c-" + "x" * 58])
    async def test_request_id_of_the_caller_is_kept(self, backend: Backend, sent: str) -> None:
        response = await backend.http.get("/nothing", headers={"X-Request-ID": sent})
        assert check_problem(response, 404, "not-found")["request_id"] == sent

    @pytest.mark.parametrize(
        "sent", ["", "x" * 7, "x" * 65, "abcdefg h", "abcdefg;h", "\u00fc" * 8]
    )
    async def test_invalid_request_id_is_replaced(self, backend: Backend, sent: str) -> None:
        headers = [(b"X-Request-ID", sent.encode("latin-1"))]
        response = await backend.http.get("/health/live", headers=headers)
        assert response.headers["x-request-id"] != sent
        assert len(response.headers["x-request-id"]) == 32

    async def test_internal_error_has_no_details(
        self, backend: Backend, alice: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def broken(*_: object, **__: object) -> None:
            raise RuntimeError("hunter2")

        monkeypatch.setattr("src.repositories.job_list.page", broken)
        response = await backend.http.get("/api/jobs", headers=bearer(backend.token_of(alice)))
        check_problem(response, 500, "internal-error")
        assert "hunter2" not in response.text

    async def test_failed_statement_is_an_internal_error(
        self, backend: Backend, alice: User, environment: Environment
    ) -> None:
        await environment.query("ALTER TABLE jobs RENAME TO jobs_away")
        response = await backend.http.get("/api/jobs", headers=bearer(backend.token_of(alice)))
        check_problem(response, 500, "internal-error")
        assert "jobs_away" not in response.text


class TestOutages:
    async def test_responses_without_postgresql(
        self, environment: Environment, database_proxy: TcpProxy
    ) -> None:
        async with running(environment.settings(DATABASE_URL=database_proxy.url)) as backend:
            alice = await backend.add_user("alice@shield.test")
            headers = bearer(backend.token_of(alice))
            await database_proxy.refuse()
            for response in (
                await log_in(backend, alice.email),
                await backend.http.get("/api/jobs", headers=headers),
                await backend.http.get(f"/api/jobs/{JOB}", headers=headers),
            ):
                check_problem(response, 503, "database-unavailable")
                assert int(response.headers["retry-after"]) > 0
            me = await backend.http.get("/auth/me", headers=headers)
            assert me.json()["email"] == alice.email
            await database_proxy.accept()
            assert (await log_in(backend, alice.email)).status_code == 200

    async def test_logins_and_lists_work_without_redis(
        self, environment: Environment, redis_proxy: TcpProxy
    ) -> None:
        async with running(environment.settings(REDIS_URL=redis_proxy.url)) as backend:
            alice = await backend.add_user("alice@shield.test")
            await redis_proxy.refuse()
            token = (await log_in(backend, alice.email)).json()["access_token"]
            page = await backend.http.get("/api/jobs", headers=bearer(token))
            assert page.json() == {"items": [], "next_cursor": None}


class TestDocuments:
    async def test_service_document(self, backend: Backend) -> None:
        card = (await backend.http.get("/")).json()
        assert card == {
            "service": "shield-ag-ui-backend",
            "version": __version__,
            "docs": "/docs",
            "health": "/health",
        }

    async def test_openapi_document(self, backend: Backend) -> None:
        document = (await backend.http.get("/openapi.json")).json()
        assert {
            "/",
            "/health",
            "/health/live",
            "/health/ready",
            "/auth/token",
            "/auth/me",
            "/api/jobs",
            "/api/jobs/{job_id}",
            "/events",
            "/api/jobs/{job_id}/events",
        } <= set(document["paths"])
        answers = document["paths"]["/api/jobs/{job_id}"]["get"]["responses"]
        assert {"200", "401", "404", "422"} <= set(answers)
        assert answers["404"] == {"$ref": "#/components/responses/JobNotFound"}

    @pytest.mark.parametrize("path", ["/", "/health", "/health/live", "/health/ready"])
    async def test_head_equals_get_without_a_body(self, backend: Backend, path: str) -> None:
        response = await backend.http.head(path)
        assert response.status_code == 200
        assert response.content == b""
        assert response.headers["content-type"] == "application/json"

    async def test_head_of_a_protected_route_is_not_allowed(self, backend: Backend) -> None:
        response = await backend.http.head("/api/jobs")
        assert response.status_code == 405
        assert response.headers["allow"] == "GET"
        assert response.content == b""


class TestCors:
    ORIGIN = "https://ui.shield.test"

    @pytest.fixture
    async def backend(self, environment: Environment) -> AsyncIterator[Backend]:
        async with running(environment.settings(CORS_ORIGINS=self.ORIGIN)) as instance:
            yield instance

    async def test_preflight_of_an_allowed_origin(self, backend: Backend) -> None:
        response = await backend.http.options(
            "/events",
            headers={
                "Origin": self.ORIGIN,
                "Access-Control-Request-Method": "GET",
                "Access-Control-Request-Headers": "authorization,last-event-id",
            },
        )
        assert response.status_code == 200
        assert response.headers["access-control-allow-origin"] == self.ORIGIN
        assert "last-event-id" in response.headers["access-control-allow-headers"]

    @pytest.mark.parametrize("path", ["/health/live", "/auth/me", "/nothing"])
    async def test_responses_are_readable_for_an_allowed_origin(
        self, backend: Backend, path: str
    ) -> None:
        response = await backend.http.get(path, headers={"Origin": self.ORIGIN})
        assert response.headers["access-control-allow-origin"] == self.ORIGIN
        exposed = {*response.headers["access-control-expose-headers"].split(", ")}
        assert exposed >= {
            "X-Request-ID",
            "Location",
            "Retry-After",
            "RateLimit",
            "RateLimit-Policy",
        }

    async def test_other_origins_are_refused(self, backend: Backend) -> None:
        headers = {"Origin": "https://evil.test", "Access-Control-Request-Method": "GET"}
        refused = await backend.http.options("/events", headers=headers)
        for response in (await backend.http.get("/health/live", headers=headers), refused):
            assert "access-control-allow-origin" not in response.headers
        problem = check_problem(refused, 400, "preflight-refused")
        assert problem["detail"].startswith("Disallowed CORS origin. ")

    async def test_preflight_of_another_method_is_refused(self, backend: Backend) -> None:
        headers = {"Origin": self.ORIGIN, "Access-Control-Request-Method": "BREW"}
        refused = await backend.http.options("/events", headers=headers)
        check_problem(refused, 400, "preflight-refused")
        assert refused.headers["access-control-allow-origin"] == self.ORIGIN
        assert "Origin" in refused.headers["vary"]


async def test_concurrent_requests(backend: Backend, alice: User) -> None:
    headers = bearer(backend.token_of(alice))
    answers = await asyncio.gather(
        *(backend.http.get("/api/jobs", headers=headers) for _ in range(30))
    )
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.headers["x-request-id"] for answer in answers}) == 30
