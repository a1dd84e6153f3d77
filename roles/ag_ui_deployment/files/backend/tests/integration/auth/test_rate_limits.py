"""Rate limits: by address, by account, by user, and global."""

import asyncio
import re
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx
import pytest

from src.config import Settings
from src.models.permissions import Role
from src.services.auth.devices import Device
from src.services.auth.errors import LimitReachedError
from src.services.auth.rate_limits import RateLimits
from src.utils import redis
from src.utils.metrics import Metrics
from src.utils.redis import command_client
from tests.support.accounts import TOO_LONG, ask_login, bearer, log_in_from, login, refresh
from tests.support.agent import run_input
from tests.support.environment import Environment
from tests.support.problems import check_problem
from tests.support.proxy import TcpProxy
from tests.support.server import PASSWORD, running
from tests.support.sse import sse
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

ALICE = "alice@shield.test"
DEVICE = Device("a-browser", "digest-of-the-current-password")


def refused(answers: list[httpx.Response]) -> int:
    """Return how many requests were refused; checks their Retry-After."""
    late = [answer for answer in answers if answer.status_code == 429]
    for answer in late:
        check_problem(answer, 429, "too-many-requests")
        assert 1 <= int(answer.headers["retry-after"]) <= 3600
    return len(late)


def quotas_of(answer: httpx.Response) -> dict[str, tuple[int, int]]:
    """Return the remaining requests of each limit, and the seconds until its reset."""
    found = re.findall(r'"([a-z_-]+)";r=(\d+);t=(\d+)', answer.headers["ratelimit"])
    return {name: (int(left), int(seconds)) for name, left, seconds in found}


DEFAULTS = {
    "RATE_LOGIN_PER_ADDRESS": "10/minute",
    "RATE_LOGIN_PER_ACCOUNT": "50/day",
    "RATE_MAIL_PER_MAILBOX": "20/hour",
    "RATE_API_PER_USER": "300/minute;10000/hour",
    "RATE_STREAMS_PER_USER": "600/minute",
    "RATE_GLOBAL": "60000/minute",
}


class TestLogins:
    async def test_limit_per_address_applies_across_instances(
        self, environment: Environment
    ) -> None:
        values: dict[str, Any] = {"RATE_LOGIN_PER_ADDRESS": "3/hour"}
        other_settings = environment.settings(**values, REDIS_CONSUMER_NAME="host-8003")
        async with running(environment.settings(**values)) as one, running(other_settings) as other:
            await one.add_user(ALICE)
            names = ("a@shield.test", "b@shield.test", "c@shield.test", ALICE)
            answers = [
                await log_in_from((one, other)[n % 2], "192.0.2.1", name)
                for n, name in enumerate(names)
            ]
            assert [answer.status_code for answer in answers] == [401, 401, 401, 429]
            assert refused(answers) == 1
            # The form counts against the same limit.
            headers = {"X-Forwarded-For": "192.0.2.1"}
            form = {"username": ALICE, "password": PASSWORD}
            form_login = await one.http.post("/auth/token", data=form, headers=headers)
            assert refused([form_login]) == 1
            assert (await log_in_from(one, "192.0.2.2", ALICE)).status_code == 200
            exposed = (await one.http.get("/metrics")).text
            assert 'ag_ui_limited_total{limit="login_address"}' in exposed

    async def test_ipv6_networks_count_as_one_address(self, environment: Environment) -> None:
        async with running(environment.settings(RATE_LOGIN_PER_ADDRESS="2/hour")) as backend:
            for addresses in (
                ("2001:db8::1", "2001:db8::2", "2001:db8::ffff:ffff:ffff:ffff"),
                ("2001:db8:0:1::1",) * 3,
                ("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.1"),
                ("192.0.2.2",) * 3,
            ):
                answers = [
                    await log_in_from(backend, address, ALICE, TOO_LONG) for address in addresses
                ]
                assert [answer.status_code for answer in answers] == [401, 401, 429]

    async def test_forwarded_address_needs_a_trusted_proxy(self, environment: Environment) -> None:
        values: dict[str, Any] = {
            "RATE_LOGIN_PER_ADDRESS": "2/hour",
            "TRUSTED_PROXIES": "192.0.2.0/24",
        }
        async with running(environment.settings(**values)) as backend:
            await backend.add_user(ALICE)
            answers = [await log_in_from(backend, f"198.51.100.{n}", ALICE) for n in range(3)]
            assert refused(answers) == 1


class TestUsers:
    async def test_requests_and_streams_have_separate_limits(
        self, environment: Environment
    ) -> None:
        values = {"RATE_API_PER_USER": "3/hour", "RATE_STREAMS_PER_USER": "2/hour"}
        async with running(environment.settings(**values)) as backend:
            alice = bearer(backend.token_of(await backend.add_user(ALICE)))
            token = backend.token_of(bob := await backend.add_user("bob@shield.test"))
            answers = [await backend.http.get("/api/jobs", headers=alice) for _ in range(5)]
            assert [answer.status_code for answer in answers] == [200] * 3 + [429] * 2
            assert refused(answers) == 2
            # Logout is still possible.
            assert (await backend.http.post("/auth/logout", headers=alice)).status_code == 204
            for _ in range(2):
                async with sse(backend.http, token=token):
                    pass
            assert refused([await backend.http.get("/events", headers=bearer(token))]) == 1
            jobs = await backend.http.get("/api/jobs", headers=bearer(backend.token_of(bob)))
            assert jobs.status_code == 200

    async def test_responses_contain_the_remaining_quota(self, environment: Environment) -> None:
        async with running(environment.settings(RATE_API_PER_USER="5/hour;3/minute")) as backend:
            alice = bearer(backend.token_of(await backend.add_user(ALICE)))
            answers = [await backend.http.get("/api/jobs/none", headers=alice) for _ in range(5)]
            assert [answer.status_code for answer in answers] == [404] * 3 + [429] * 2
            for answer in answers:
                policies = answer.headers["ratelimit-policy"]
                assert policies == '"api-minute";q=3;w=60, "api-hour";q=5;w=3600'
            left = [quotas_of(answer) for answer in answers]
            assert [one["api-minute"][0] for one in left] == [2, 1, 0, 0, 0]
            # A request refused by the minute limit does not count for the hour limit.
            assert [one["api-hour"][0] for one in left] == [4, 3, 2, 2, 2]
            last = answers[-1]
            assert 1 <= int(last.headers["retry-after"]) <= 60
            assert abs(left[-1]["api-minute"][1] - int(last.headers["retry-after"])) <= 1

    async def test_unlimited_routes_have_no_headers(self, environment: Environment) -> None:
        async with running(environment.settings(RATE_STREAMS_PER_USER="7/hour")) as backend:
            token = backend.token_of(await backend.add_user(ALICE))
            for path in ("/health", "/metrics", "/openapi.json", "/nothing", "/auth/me"):
                assert "ratelimit" not in (await backend.http.get(path)).headers
            async with backend.http.stream("GET", "/events", headers=bearer(token)) as stream:
                assert {*quotas_of(stream)} == {"stream-hour"}
            login = await ask_login(backend, ALICE, "wrong")
            assert {*quotas_of(login)} == {"login_address-minute"}

    async def test_refreshes_count_as_requests(self, environment: Environment) -> None:
        async with running(environment.settings(RATE_API_PER_USER="3/hour")) as backend:
            await backend.add_user(ALICE)
            tokens, other = await login(backend, ALICE), await login(backend, ALICE)
            for _ in range(3):
                tokens = (await refresh(backend, tokens)).json()
            answers = [await refresh(backend, one) for one in (tokens, tokens, other)]
            assert refused(answers) == 3
            async for key in environment.redis.scan_iter(f"*{environment.stream}:limits*"):
                await environment.redis.delete(key)
            assert (await refresh(backend, tokens)).status_code == 200
            # An invalid token counts for no user.
            for _ in range(5):
                answer = await refresh(backend, {"refresh_token": "x.y"})
                check_problem(answer, 401, "not-authenticated")

    async def test_agent_runs_count_as_streams(self, environment: Environment) -> None:
        async with running(environment.settings(RATE_STREAMS_PER_USER="1/hour")) as backend:
            alice = await backend.add_user(ALICE, Role.CONTRIBUTOR)
            headers = bearer(backend.token_of(alice))
            async with sse(backend.http, token=backend.token_of(alice)):
                pass
            for method, path in (("POST", "/agent"), ("GET", "/agent/runs/none/events")):
                body = run_input("?") if method == "POST" else None
                answer = await backend.http.request(method, path, json=body, headers=headers)
                assert refused([answer]) == 1
            assert await environment.query("SELECT * FROM agent_runs") == []

    async def test_global_limit(self, environment: Environment) -> None:
        async with running(environment.settings(RATE_GLOBAL="5/hour")) as backend:
            headers = bearer(backend.token_of(await backend.add_user(ALICE)))
            asking = (backend.http.get("/auth/me", headers=headers) for _ in range(8))
            assert refused(list(await asyncio.gather(*asking))) == 3
            # Monitoring is not limited.
            for path in ("/health", "/health/ready", "/metrics", "/"):
                assert (await backend.http.get(path)).status_code == 200


async def test_default_limits_are_exact(environment: Environment) -> None:
    assert {name: Settings.model_fields[name].default for name in DEFAULTS} == DEFAULTS
    limits = RateLimits(environment.settings(**DEFAULTS), Metrics())
    alice = uuid4()
    counts: list[tuple[int, Callable[[int], Awaitable[None]]]] = [
        (10, lambda n: limits.check_login("192.0.2.1", f"{n}@shield.test", None)),
        (10, lambda n: limits.check_login(f"192.0.2.{n + 2}", ALICE, DEVICE)),
        (20, lambda n: limits.check_mail(f"192.0.3.{n}", ALICE)),
        (300, lambda _: limits.check_user(alice)),
        (600, lambda _: limits.check_stream(alice)),
    ]
    for maximum, count in counts:
        for n in range(maximum):
            await count(n)
        with pytest.raises(LimitReachedError):
            await count(maximum)
    await limits.close()


async def test_revoked_device_does_not_use_the_limit_of_current_ones(
    environment: Environment,
) -> None:
    limits = RateLimits(environment.settings(**DEFAULTS), Metrics())
    revoked = Device("a-browser", "digest-of-a-former-password")
    for _ in range(10):
        await limits.check_login("192.0.2.1", ALICE, revoked)
    with pytest.raises(LimitReachedError):
        await limits.check_login("192.0.2.1", ALICE, revoked)
    await limits.check_login("192.0.2.2", ALICE, DEVICE)
    await limits.close()


async def test_unauthenticated_requests_do_not_use_the_global_limit(
    environment: Environment,
) -> None:
    async with running(environment.settings(RATE_GLOBAL="5/hour")) as backend:
        user = await backend.add_user(ALICE)
        for _ in range(20):
            answer = await backend.http.get("/auth/me", headers=bearer("forged"))
            check_problem(answer, 401, "not-authenticated")
        answer = await backend.http.get("/auth/me", headers=bearer(backend.token_of(user)))
        assert answer.status_code == 200


async def test_exhausted_connection_pool_is_no_outage(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Tests the queueing for connections, not the speed of Redis on a busy machine.
    monkeypatch.setattr(redis, "_LIMITS_TIMEOUT", 10.0)
    monkeypatch.setattr(redis, "_CONNECTION_TIMEOUT", 30.0)
    settings = environment.settings(RATE_GLOBAL="100/hour")
    limits, commands = RateLimits(settings, Metrics()), command_client(settings)
    counted = await asyncio.gather(
        *(limits.check_global() for _ in range(300)), return_exceptions=True
    )
    assert counted.count(None) == 100
    assert sum(isinstance(one, LimitReachedError) for one in counted) == 200
    # The connection pool of tickets and agent runs.
    assert all(await asyncio.gather(*(commands.ping() for _ in range(300))))
    await commands.aclose()
    await limits.close()


class TestOutage:
    async def test_instances_count_locally_without_redis(
        self, environment: Environment, redis_proxy: TcpProxy
    ) -> None:
        values: dict[str, Any] = {"RATE_LOGIN_PER_ADDRESS": "3/hour"}
        async with running(environment.settings(REDIS_URL=redis_proxy.url, **values)) as backend:
            await backend.add_user(ALICE)
            await redis_proxy.refuse()
            answers = [await ask_login(backend, ALICE) for _ in range(5)]
            assert [answer.status_code for answer in answers] == [200] * 3 + [429] * 2
            await redis_proxy.accept()
            await until(lambda: backend.services.events.tailer.status == "following")

    async def test_hanging_redis_delays_only_one_request(
        self, environment: Environment, redis_proxy: TcpProxy
    ) -> None:
        async with running(environment.settings(REDIS_URL=redis_proxy.url)) as backend:
            headers = bearer(backend.token_of(await backend.add_user(ALICE)))
            await backend.http.get("/auth/me", headers=headers)
            redis_proxy.freeze()
            loop = asyncio.get_running_loop()
            began = loop.time()
            for _ in range(10):
                answer = await backend.http.get("/auth/me", headers=headers)
                assert answer.status_code == 200
            assert loop.time() - began < 3
