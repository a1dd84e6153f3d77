"""Browsers: tokens in cookies, CSRF protection, and tickets for streams."""

import asyncio
import re
import time
from typing import Any
from uuid import uuid4

import httpx
import pytest
from jose import jwt

from src.main import create_app
from src.models.user import User
from src.services.audit_logger import Action
from src.services.auth.tokens import TokenService
from src.web.route_rules import rules_of
from tests.support.accounts import bearer, cookies_of, is_logged_in, login, recording, refresh
from tests.support.environment import Environment
from tests.support.problems import check_problem
from tests.support.proxy import TcpProxy
from tests.support.server import PASSWORD, Backend, running
from tests.support.sse import sse
from tests.support.waiting import until

ALICE = "alice@shield.test"
ACCESS, REFRESH = "__Host-ag_ui_access", "__Host-ag_ui_refresh"
TRUSTED = "http://localhost:3001"


@pytest.fixture
async def alice(backend: Backend) -> User:
    return await backend.add_user(ALICE)


class Browser:
    """Sends its cookies with all requests, as from a page of `origin`."""

    def __init__(self, backend: Backend, origin: str | None = None) -> None:
        self.http = backend.http
        self.own = str(backend.http.base_url).rstrip("/")
        self.origin: str | None = origin or self.own
        self.jar: dict[str, str] = {}
        self.headers: dict[str, str] = {}

    async def send(self, method: str, path: str, **options: Any) -> httpx.Response:
        cookies = "; ".join(f"{name}={value}" for name, value in self.jar.items())
        headers = {name.encode(): value.encode() for name, value in self.headers.items()}
        headers[b"Cookie"] = cookies.encode("latin-1")
        if self.origin is not None:
            headers[b"Origin"] = self.origin.encode()
        response = await self.http.request(method, path, headers=headers, **options)
        for name, cookie in cookies_of(response).items():
            self.jar[name] = cookie.value
        return response

    async def log_in(self) -> httpx.Response:
        body = {"email": ALICE, "password": PASSWORD, "cookies": True}
        return await self.send("POST", "/auth/login", json=body)


@pytest.mark.usefixtures("alice")
class TestCookies:
    async def test_attributes_of_the_cookies(self, backend: Backend) -> None:
        browser = Browser(backend)
        response = await browser.log_in()
        assert response.json() == {
            "token_type": "cookie",
            "expires_in": 1800,
            "refresh_expires_in": response.json()["refresh_expires_in"],
        }
        cookies = cookies_of(response)
        for name in (ACCESS, REFRESH):
            cookie = cookies[name]
            assert cookie["httponly"]
            assert cookie["secure"]
            assert cookie["samesite"] == "strict"
            # Required by the prefix: otherwise browsers refuse the cookie, as they do from any
            # other host.
            assert name.startswith("__Host-")
            assert cookie["path"] == "/"
            assert cookie["domain"] == ""
            assert cookie.value not in response.text
        assert int(cookies[ACCESS]["max-age"]) == 1800
        assert (await browser.send("GET", "/auth/me")).json()["email"] == ALICE

    async def test_life_cycle_of_a_session(self, backend: Backend) -> None:
        browser = Browser(backend)
        await browser.log_in()
        browser.origin = TRUSTED
        browser.jar = {name: browser.jar[name] for name in (ACCESS, REFRESH)}
        before = dict(browser.jar)
        assert (await browser.send("POST", "/auth/refresh")).json()["token_type"] == "cookie"
        assert before[REFRESH] != browser.jar[REFRESH]
        # The access cookie has expired, which happens before the session does.
        jar = dict(browser.jar)
        del browser.jar[ACCESS]
        assert (await browser.send("POST", "/auth/logout")).status_code == 204
        assert browser.jar == {ACCESS: "", REFRESH: ""}
        browser.jar = jar
        check_problem(await browser.send("GET", "/auth/me"), 401, "not-authenticated")
        check_problem(await browser.send("POST", "/auth/refresh"), 401, "not-authenticated")

    @pytest.mark.parametrize(
        ("host", "origin", "site", "kept"),
        [
            ("api.shield.test", "https://app.shield.test", None, True),
            ("api.shield.test", "https://app.shield.test", "same-site", True),
            ("shield.test:8443", "https://shield.test:8443", None, True),
            # The hosts belong to different sites, which only the browser knows (Public Suffix
            # List).
            ("a.co.test", "https://b.co.test", "cross-site", False),
            ("api.shield.test", "https://app.other.test", None, False),
            ("api.shield.test", "http://app.shield.test", None, False),
            ("10.0.2.1", "https://10.1.2.1", None, False),
            ("server", "https://localhost:3001", None, False),
        ],
    )
    async def test_page_that_cannot_keep_cookies_gets_an_error(
        self, environment: Environment, host: str, origin: str, site: str | None, *, kept: bool
    ) -> None:
        async with running(environment.settings(CORS_ORIGINS=[origin])) as backend:
            await backend.add_user("carol@shield.test")
            headers = {"Host": host, "Origin": origin, "X-Forwarded-Proto": "https"}
            if site is not None:
                headers["Sec-Fetch-Site"] = site
            body = {"email": "carol@shield.test", "password": PASSWORD}
            answer = await backend.http.post(
                "/auth/login", json=body | {"cookies": True}, headers=headers
            )
            if kept:
                assert answer.status_code == 200
                return
            check_problem(answer, 403, "cookies-not-kept")
            assert "set-cookie" not in answer.headers
            # No session was started, but any page may request tokens.
            assert await environment.query("SELECT FROM sessions WHERE refresh_hash <> ''") == []
            answer = await backend.http.post("/auth/login", json=body, headers=headers)
            assert answer.status_code == 200

    async def test_no_cookies_over_plain_http(self, backend: Backend) -> None:
        browser = Browser(backend, "http://shield.test")
        browser.headers = {"Host": "shield.test"}
        check_problem(await browser.log_in(), 403, "cookies-not-kept")

    @pytest.mark.parametrize(
        "origin", [None, "", "null", "https://evil.test", "http://localhost:3001.evil.test"]
    )
    async def test_other_origins_cannot_write(self, backend: Backend, origin: str | None) -> None:
        browser = Browser(backend)
        await browser.log_in()
        browser.origin = origin
        for path in (
            "/auth/logout",
            "/auth/logout?everywhere=true",
            "/auth/ticket",
            "/auth/refresh",
        ):
            check_problem(await browser.send("POST", path), 403, "wrong-origin")
        change = {"current_password": PASSWORD, "new_password": "x"}
        answer = await browser.send("POST", "/auth/password/change", json=change)
        check_problem(answer, 403, "wrong-origin")
        # Nor can it log the visitor in to another account.
        check_problem(await browser.log_in(), 403, "wrong-origin")
        browser.origin = TRUSTED
        assert (await browser.send("GET", "/auth/me")).status_code == 200

    @pytest.mark.parametrize("authorization", [None, "Bearer", "bearer", "Basic eDp5"])
    async def test_every_route_refuses_other_origins(
        self, backend: Backend, environment: Environment, authorization: str | None
    ) -> None:
        """Tests every route that accepts a cookie, the admin's too.

        Also with an invalid bearer token.
        """
        browser = Browser(backend)
        await browser.log_in()
        await environment.query("UPDATE users SET role = 'admin'")
        browser.origin = "https://evil.test"
        browser.headers = {"Authorization": authorization} if authorization else {}
        before = await environment.rows()
        writes = [
            rule
            for rule in rules_of(create_app(backend.settings))
            if rule.needs_login and rule.method != "GET"
        ]
        for rule in writes:
            path = re.sub(r"\{[^}]*\}", str(uuid4()), rule.path)
            # A body means a logout by refresh token, which no other page has.
            body: Any = None if path == "/auth/logout" else {}
            answer = await browser.send(rule.method, path, json=body)
            check_problem(answer, 403, "wrong-origin")
        tried = {(rule.method, rule.path.split("/")[1]) for rule in writes}
        assert tried >= {
            *((method, "admin") for method in ("POST", "PUT", "DELETE")),
            *((method, part) for method in ("POST", "DELETE") for part in ("agent", "auth")),
            ("POST", "api"),
        }
        assert await environment.rows() == before

    async def test_empty_bearer_token_is_ignored(self, backend: Backend, alice: User) -> None:
        browser = Browser(backend)
        await browser.log_in()
        browser.headers = {"Authorization": "Bearer"}
        assert (await browser.send("GET", "/auth/me")).json()["id"] == str(alice.id)
        ticket = await ticket_of(backend, alice)
        async with backend.http.stream(
            "GET", f"/events?ticket={ticket}", headers=browser.headers
        ) as answer:
            assert answer.status_code == 200

    async def test_login_replaces_a_planted_session(self, backend: Backend) -> None:
        await backend.add_user("mallory@shield.test")
        browser = Browser(backend)
        planted = await login(backend, "mallory@shield.test")
        browser.jar = {ACCESS: planted["access_token"], REFRESH: planted["refresh_token"]}
        await browser.log_in()
        assert (await browser.send("GET", "/auth/me")).json()["email"] == ALICE
        assert browser.jar[ACCESS] != planted["access_token"]
        assert browser.jar[REFRESH].split(".")[0] != planted["refresh_token"].split(".")[0]

    async def test_planted_refresh_cookies_are_ignored(self, backend: Backend) -> None:
        await backend.add_user("mallory@shield.test")
        planted = await login(backend, "mallory@shield.test")
        browser = Browser(backend)
        await browser.log_in()
        # Names without the exact prefix, including those of earlier releases.
        names = ("__Secure-ag_ui_refresh", REFRESH.lower(), f"\xa0{REFRESH}", f"\x85{REFRESH}")
        for name in names:
            browser.jar[name] = planted["refresh_token"]
            await browser.send("POST", "/auth/refresh")
            assert (await browser.send("GET", "/auth/me")).json()["email"] == ALICE
        del browser.jar[REFRESH]
        check_problem(await browser.send("POST", "/auth/refresh"), 401, "not-authenticated")

    async def test_bearer_token_overrides_the_cookie(self, backend: Backend) -> None:
        bob = await backend.add_user("bob@shield.test")
        browser = Browser(backend)
        await browser.log_in()
        headers = bearer(backend.token_of(bob)) | {"Cookie": f"{ACCESS}={browser.jar[ACCESS]}"}
        me = await backend.http.get("/auth/me", headers=headers)
        assert me.json()["email"] == bob.email
        # It needs no Origin header: no other page can send it.
        assert (await backend.http.post("/auth/ticket", headers=headers)).status_code == 200

    async def test_logout_by_refresh_token(self, backend: Backend) -> None:
        tokens = await login(backend, ALICE)
        assert (await log_out(backend, tokens)).status_code == 204
        assert not await is_logged_in(backend, tokens)
        check_problem(await log_out(backend, tokens), 401, "not-authenticated")
        # Two tabs, one of which refreshes the tokens while the other logs out.
        tokens = await login(backend, ALICE)
        renewed = (await refresh(backend, tokens)).json()
        assert (await log_out(backend, tokens)).status_code == 204
        assert not await is_logged_in(backend, renewed)

    async def test_reused_refresh_token_ends_only_its_session(
        self, backend: Backend, environment: Environment
    ) -> None:
        tokens, bystander = await login(backend, ALICE), await login(backend, ALICE)
        renewed = (await refresh(backend, tokens)).json()
        await environment.query(
            "UPDATE sessions SET rotated_at = rotated_at - interval '6 seconds'"
        )
        async with recording() as events:
            used = await log_out(backend, tokens, everywhere=True)
        check_problem(used, 401, "not-authenticated")
        assert [event.action for event in events] == [Action.TOKEN_REUSE]
        assert not await is_logged_in(backend, renewed)
        assert await is_logged_in(backend, bystander)

    @pytest.mark.parametrize("column", ["last_used_at", "expires_at"])
    async def test_expired_refresh_token_cannot_log_out(
        self, backend: Backend, environment: Environment, column: str
    ) -> None:
        bystander, tokens = await login(backend, ALICE), await login(backend, ALICE)
        await environment.query(
            f"UPDATE sessions SET {column} = {column} - interval '8 hours'"  # noqa: S608 - a column
            " WHERE created_at = (SELECT max(created_at) FROM sessions)"
        )
        late = await log_out(backend, tokens, everywhere=True)
        check_problem(late, 401, "not-authenticated")
        assert await is_logged_in(backend, bystander)


async def log_out(
    backend: Backend, tokens: dict[str, Any], *, everywhere: bool = False
) -> httpx.Response:
    """Log out with only the refresh token."""
    body = {"refresh_token": tokens["refresh_token"]}
    query = {"everywhere": everywhere}
    return await backend.http.post("/auth/logout", params=query, json=body)


async def ticket_of(backend: Backend, user: User) -> str:
    headers = bearer(backend.token_of(user))
    response = await backend.http.post("/auth/ticket", headers=headers)
    body = response.json()
    assert body["expires_in"] <= 60
    return str(body["ticket"])


class TestTickets:
    async def test_ticket_opens_one_stream_on_any_instance(
        self, backend: Backend, alice: User, environment: Environment
    ) -> None:
        settings = environment.settings(REDIS_CONSUMER_NAME="host-8003")
        async with running(settings) as other:
            ticket = await ticket_of(backend, alice)
            async with sse(other.http, f"/events?ticket={ticket}") as client:
                assert not client.ended
                for instance in (backend, other):
                    again = await instance.http.get(f"/events?ticket={ticket}")
                    check_problem(again, 401, "not-authenticated")
        ticket = await ticket_of(backend, alice)
        job = await backend.http.get(f"/api/jobs/none/events?ticket={ticket}")
        check_problem(job, 404, "job-not-found")

    @pytest.mark.parametrize("why", ["draining", "too-many-streams", "too-many-streams-of-user"])
    async def test_ticket_refused_for_capacity_works_on_another_instance(
        self, backend: Backend, alice: User, environment: Environment, why: str
    ) -> None:
        """The proxy retries the same request at the next instance."""
        limits = {"draining": {}, "too-many-streams": {"STREAMS_MAX": 1}}
        few = limits.get(why, {"STREAMS_PER_USER": 1})
        settings = environment.settings(REDIS_CONSUMER_NAME="host-8003", **few)
        tickets = [await ticket_of(backend, alice) for _ in range(2)]
        async with running(settings) as full, sse(full.http, token=full.token_of(alice)):
            if why == "draining":
                full.services.drain()
            for path, ticket in zip(("/events", "/agent/runs/x/events"), tickets, strict=True):
                refused = await full.http.get(f"{path}?ticket={ticket}")
                check_problem(refused, 429 if why.endswith("user") else 502, why)
            async with sse(backend.http, f"/events?ticket={tickets[0]}") as client:
                assert not client.ended
            run = await backend.http.get(f"/agent/runs/x/events?ticket={tickets[1]}")
            check_problem(run, 404, "run-not-found")

    async def test_use_is_remembered_until_expiry(
        self, backend: Backend, alice: User, environment: Environment
    ) -> None:
        ticket = await ticket_of(backend, alice)
        await backend.http.get(f"/api/jobs/none/events?ticket={ticket}")
        (key,) = [
            key async for key in environment.redis.scan_iter(f"{environment.stream}:ticket:*")
        ]
        lives_until = float(jwt.get_unverified_claims(ticket)["exp"])
        assert time.time() + await environment.redis.pttl(key) / 1000 > lives_until

    async def test_concurrent_uses_succeed_once(self, backend: Backend, alice: User) -> None:
        ticket = await ticket_of(backend, alice)
        path = f"/api/jobs/none/events?ticket={ticket}"
        answers = await asyncio.gather(*(backend.http.get(path) for _ in range(10)))
        assert sorted(answer.status_code for answer in answers) == [401] * 9 + [404]

    async def test_ticket_is_refused_elsewhere(self, backend: Backend, alice: User) -> None:
        ticket, token = await ticket_of(backend, alice), backend.token_of(alice)
        for path in ("/auth/me", "/api/jobs"):
            for answer in (
                await backend.http.get(f"{path}?ticket={ticket}"),
                await backend.http.get(path, headers=bearer(ticket)),
            ):
                check_problem(answer, 401, "not-authenticated")
        answer = await backend.http.get(f"/events?ticket={token}")
        check_problem(answer, 401, "not-authenticated")

    async def test_stream_ends_with_access_and_session(
        self, backend: Backend, alice: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        short = backend.token_of(alice, ACCESS_TOKEN_EXPIRE_MINUTES=3 / 60)
        response = await backend.http.post("/auth/ticket", headers=bearer(short))
        async with sse(backend.http, f"/events?ticket={response.json()['ticket']}") as client:
            await client.until_ended()
            assert client.comments == ["the token has expired"]
        stale = await ticket_of(backend, alice)
        await backend.http.post("/auth/logout", headers=bearer(backend.token_of(alice)))
        check_problem(await backend.http.get(f"/events?ticket={stale}"), 401, "not-authenticated")
        monkeypatch.setattr("src.services.auth.tokens.TICKET_SECONDS", -1)
        access = TokenService(backend.settings).verify(backend.token_of(alice))
        late = TokenService(backend.settings).issue_ticket(access)
        check_problem(await backend.http.get(f"/events?ticket={late}"), 401, "not-authenticated")

    async def test_tickets_need_redis(
        self, environment: Environment, redis_proxy: TcpProxy
    ) -> None:
        async with running(environment.settings(REDIS_URL=redis_proxy.url)) as backend:
            alice = await backend.add_user(ALICE)
            ticket = await ticket_of(backend, alice)
            await redis_proxy.refuse()
            answer = await backend.http.get(f"/events?ticket={ticket}")
            check_problem(answer, 503, "tickets-unavailable")
            await redis_proxy.accept()
            await until(lambda: backend.services.events.tailer.status == "following")
            async with sse(backend.http, f"/events?ticket={ticket}") as client:
                assert not client.ended
