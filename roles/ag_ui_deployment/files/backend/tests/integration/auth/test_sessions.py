"""Sessions: tokens, lifetimes, and events that end sessions and their streams."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pyotp
import pytest
from argon2 import PasswordHasher

from src.models.permissions import Role
from src.models.session import AccessChangeReason
from src.models.user import User
from src.services.auth import revocation_watcher
from src.services.auth.passwords import verify_password
from tests.support.accounts import ask_login, bearer, is_logged_in, login, refresh
from tests.support.builders import shield_event
from tests.support.environment import Environment
from tests.support.problems import check_problem
from tests.support.proxy import TcpProxy
from tests.support.server import PASSWORD, Backend, running, two_instances
from tests.support.sse import SseClient, sse
from tests.support.waiting import until

Tokens = dict[str, Any]

ALICE = "alice@shield.test"
NEW_PASSWORD = "umbrella-thirteen-granite-soup"


@pytest.fixture
async def alice(backend: Backend) -> User:
    return await backend.add_user(ALICE)


@pytest.fixture
async def pair(environment: Environment) -> AsyncIterator[tuple[Backend, Backend]]:
    """Two instances on one database."""
    async with two_instances(environment) as both:
        yield both


async def shift(environment: Environment, column: str, **delta: float) -> None:
    """Move a timestamp of all sessions back."""
    statement = f"UPDATE sessions SET {column} = {column} - $1::interval"  # noqa: S608 - a column
    await environment.query(statement, timedelta(**delta))


class TestLogin:
    async def test_form_and_json_login_return_tokens(self, backend: Backend, alice: User) -> None:
        form = {"username": ALICE, "password": PASSWORD}
        by_form = await backend.http.post("/auth/token", data=form)
        by_json = await ask_login(backend, " Alice@Shield.TEST ")
        for response in (by_form, by_json):
            assert response.headers["cache-control"] == "no-store"
            body = response.json()
            assert (body["token_type"], body["expires_in"]) == ("bearer", 1800)
            assert 8 * 3600 - 5 <= body["refresh_expires_in"] <= 8 * 3600
            assert await is_logged_in(backend, body)
            me = await backend.http.get("/auth/me", headers=bearer(body["access_token"]))
            assert me.json()["id"] == str(alice.id)

    @pytest.mark.usefixtures("alice")
    async def test_outdated_hash_is_replaced(
        self, backend: Backend, environment: Environment
    ) -> None:
        weak = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash(PASSWORD)
        await environment.query("UPDATE users SET password_hash = $1", weak)
        await login(backend, ALICE)
        ((hashed,),) = await environment.query("SELECT password_hash FROM users")
        assert hashed != weak
        assert await verify_password(PASSWORD, hashed) == (True, None)

    @pytest.mark.usefixtures("alice")
    async def test_concurrent_logins_with_an_outdated_hash_succeed(
        self, backend: Backend, environment: Environment
    ) -> None:
        weak = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash(PASSWORD)
        await environment.query("UPDATE users SET password_hash = $1", weak)
        wrong = ask_login(backend, ALICE, "not my password")
        answers = await asyncio.gather(wrong, *(ask_login(backend, ALICE) for _ in range(4)))
        assert [answer.status_code for answer in answers] == [401, *[200] * 4]

    @pytest.mark.usefixtures("alice")
    async def test_stored_values_are_no_tokens(
        self, backend: Backend, environment: Environment
    ) -> None:
        tokens = await login(backend, ALICE)
        kept = str([tuple(row) for row in await environment.query("SELECT * FROM sessions")])
        series, secret = tokens["refresh_token"].split(".")
        assert series not in kept
        assert secret not in kept

    @pytest.mark.parametrize("missing", ["email", "password"])
    async def test_missing_field_is_reported(self, backend: Backend, missing: str) -> None:
        body = {"email": ALICE, "password": "hunter2", "otp": "123456"}
        del body[missing]
        response = await backend.http.post("/auth/login", json=body)
        (error,) = check_problem(response, 422, "invalid-request")["errors"]
        assert error["field"] == f"body.{missing}"
        assert "hunter2" not in response.text


class TestRefresh:
    @pytest.mark.usefixtures("alice")
    async def test_token_is_single_use(self, backend: Backend) -> None:
        first = await login(backend, ALICE)
        second = (await refresh(backend, first)).json()
        third = (await refresh(backend, second)).json()
        assert len({one["refresh_token"] for one in (first, second, third)}) == 3
        assert await is_logged_in(backend, third)

    @pytest.mark.usefixtures("alice")
    async def test_reused_token_ends_the_session(
        self, backend: Backend, environment: Environment
    ) -> None:
        first = await login(backend, ALICE)
        bystander = await login(backend, ALICE)
        second = (await refresh(backend, first)).json()
        await shift(environment, "rotated_at", seconds=6)
        check_problem(await refresh(backend, first), 401, "not-authenticated")
        check_problem(await refresh(backend, second), 401, "not-authenticated")
        assert not await is_logged_in(backend, second)
        assert await is_logged_in(backend, bystander)
        rows = await environment.query("SELECT ended_why FROM sessions WHERE ended_at IS NOT NULL")
        assert [row[0] for row in rows] == ["token_reuse"]

    async def test_concurrent_refreshes_succeed_once(self, pair: tuple[Backend, Backend]) -> None:
        await pair[0].add_user(ALICE)
        tokens = await login(pair[0], ALICE)
        answers = await asyncio.gather(*(refresh(pair[n % 2], tokens) for n in range(6)))
        won = [answer for answer in answers if answer.status_code == 200]
        assert len(won) == 1
        for answer in answers:
            if answer not in won:
                check_problem(answer, 409, "refresh-raced")
        assert (await refresh(pair[1], won[0].json())).status_code == 200

    @pytest.mark.parametrize("token", ["", ".", "a.b", "x" * 2000, "\u0430.b", "\x00.\x00"])
    async def test_malformed_token_is_refused(self, backend: Backend, token: str) -> None:
        response = await backend.http.post("/auth/refresh", json={"refresh_token": token})
        check_problem(response, 401, "not-authenticated")

    @pytest.mark.usefixtures("alice")
    async def test_access_and_refresh_tokens_are_not_interchangeable(
        self, backend: Backend
    ) -> None:
        tokens = await login(backend, ALICE)
        swapped = {
            "access_token": tokens["refresh_token"],
            "refresh_token": tokens["access_token"],
        }
        check_problem(await refresh(backend, swapped), 401, "not-authenticated")
        assert not await is_logged_in(backend, swapped)
        assert await is_logged_in(backend, tokens)
        assert (await refresh(backend, tokens)).status_code == 200


class TestExpiry:
    @pytest.mark.usefixtures("alice")
    async def test_idle_session_expires(self, backend: Backend, environment: Environment) -> None:
        tokens = await login(backend, ALICE)
        await shift(environment, "last_used_at", minutes=29)
        assert await is_logged_in(backend, tokens)
        # That was a use: the idle timeout starts again.
        await shift(environment, "last_used_at", minutes=29)
        assert await is_logged_in(backend, tokens)
        await shift(environment, "last_used_at", minutes=30)
        assert not await is_logged_in(backend, tokens)
        check_problem(await refresh(backend, tokens), 401, "not-authenticated")

    @pytest.mark.usefixtures("alice")
    async def test_session_has_an_absolute_lifetime(
        self, backend: Backend, environment: Environment
    ) -> None:
        tokens = await login(backend, ALICE)
        await shift(environment, "expires_at", hours=7, minutes=50)
        renewed = (await refresh(backend, tokens)).json()
        assert 590 <= renewed["expires_in"] <= renewed["refresh_expires_in"] <= 600
        await shift(environment, "expires_at", minutes=10)
        assert not await is_logged_in(backend, renewed)
        check_problem(await refresh(backend, renewed), 401, "not-authenticated")

    async def test_open_stream_keeps_the_session_alive(
        self, environment: Environment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(revocation_watcher, "_TOUCH_EVERY_SECONDS", 0.5)
        async with running(environment.settings(SESSION_IDLE_MINUTES=1)) as backend:
            alice = await backend.add_user(ALICE)
            async with sse(backend.http, token=backend.token_of(alice)):
                await shift(environment, "last_used_at", seconds=30)
                await until(lambda: used_lately(environment))


async def used_lately(environment: Environment) -> bool:
    ((at,),) = await environment.query("SELECT last_used_at FROM sessions")
    return bool(datetime.now(UTC) - at < timedelta(seconds=10))


class TestSessionList:
    @pytest.mark.usefixtures("alice")
    async def test_sessions_are_listed_and_ended_individually(self, backend: Backend) -> None:
        await login(backend, ALICE)
        backend.http.headers["User-Agent"] = "a browser " + "x" * 300
        tokens = await login(backend, ALICE)
        bob = await backend.add_user("bob@shield.test")
        headers = bearer(tokens["access_token"])
        sessions = (await backend.http.get("/auth/sessions", headers=headers)).json()
        first, second, *_ = sessions["items"]
        assert (first["current"], second["current"]) == (True, False)
        assert first["address"] == "127.0.0.1"
        assert first["user_agent"].startswith("a browser x")
        assert len(first["user_agent"]) == 200
        # Users can only end their own sessions, and only once.
        path = f"/auth/sessions/{second['id']}"
        not_mine = await backend.http.delete(path, headers=bearer(backend.token_of(bob)))
        check_problem(not_mine, 404, "session-not-found")
        assert (await backend.http.delete(path, headers=headers)).status_code == 204
        check_problem(await backend.http.delete(path, headers=headers), 404, "session-not-found")
        listed = (await backend.http.get("/auth/sessions", headers=headers)).json()["items"]
        assert first in listed
        assert second["id"] not in {one["id"] for one in listed}

    @pytest.mark.usefixtures("alice")
    async def test_logout_ends_one_or_all_sessions(self, backend: Backend) -> None:
        one, two, three = [await login(backend, ALICE) for _ in range(3)]
        headers = bearer(one["access_token"])
        assert (await backend.http.post("/auth/logout", headers=headers)).status_code == 204
        assert [await is_logged_in(backend, it) for it in (one, two, three)] == [False, True, True]
        check_problem(await refresh(backend, one), 401, "not-authenticated")
        headers = bearer(two["access_token"])
        await backend.http.post("/auth/logout?everywhere=true", headers=headers)
        assert [await is_logged_in(backend, it) for it in (one, two, three)] == [False] * 3


class TestPasswordChange:
    async def change(self, backend: Backend, tokens: dict[str, Any], current: str, new: str) -> Any:
        return await backend.http.post(
            "/auth/password/change",
            headers=bearer(tokens["access_token"]),
            json={"current_password": current, "new_password": new},
        )

    @pytest.mark.usefixtures("alice")
    async def test_change_ends_the_other_sessions(self, backend: Backend) -> None:
        mine, other = await login(backend, ALICE), await login(backend, ALICE)
        answer = await self.change(backend, mine, PASSWORD, NEW_PASSWORD)
        assert answer.status_code == 204, answer.text
        assert await is_logged_in(backend, mine)
        assert not await is_logged_in(backend, other)
        check_problem(await refresh(backend, other), 401, "not-authenticated")
        check_problem(await ask_login(backend, ALICE), 401, "wrong-credentials")
        await login(backend, ALICE, NEW_PASSWORD)

    @pytest.mark.usefixtures("alice")
    async def test_refused_change_has_no_effect(
        self, backend: Backend, environment: Environment
    ) -> None:
        await environment.query("UPDATE users SET name = 'Alice Pleasance Liddell'")
        mine, other = await login(backend, ALICE), await login(backend, ALICE)
        answer = await self.change(backend, mine, "not my password", NEW_PASSWORD)
        (error,) = check_problem(answer, 422, "wrong-password")["errors"]
        assert error["field"] == "body.current_password"
        for easy in ("short", "Liddell-Pleasance-12"):
            weak = await self.change(backend, mine, PASSWORD, easy)
            (error,) = check_problem(weak, 422, "password-rejected")["errors"]
            assert error["field"] == "body.new_password"
            # Only a user who knows the current password learns whether the new one is acceptable;
            # for others it is not even checked.
            wrong = await self.change(backend, mine, "not my password", easy)
            check_problem(wrong, 422, "wrong-password")
        assert await is_logged_in(backend, other)

    @pytest.mark.usefixtures("alice")
    async def test_concurrent_changes_succeed_once(self, backend: Backend) -> None:
        tokens = await login(backend, ALICE)
        words = [f"{NEW_PASSWORD}-{n}" for n in range(3)]
        answers = await asyncio.gather(
            *(self.change(backend, tokens, PASSWORD, word) for word in words)
        )
        codes = [answer.status_code for answer in answers]
        assert sorted(codes) == [204, 422, 422]
        logins = [(await ask_login(backend, ALICE, word)).status_code for word in words]
        assert [code == 200 for code in logins] == [code == 204 for code in codes]

    @pytest.mark.usefixtures("alice")
    async def test_attempts_of_a_session_are_limited(self, backend: Backend) -> None:
        tokens = await login(backend, ALICE)
        for _ in range(5):
            await self.change(backend, tokens, "not my password", NEW_PASSWORD)
        right = await self.change(backend, tokens, PASSWORD, NEW_PASSWORD)
        check_problem(right, 422, "wrong-password")
        # An attacker with a stolen session cannot lock the owner out.
        again = await login(backend, ALICE)
        assert (await self.change(backend, again, PASSWORD, NEW_PASSWORD)).status_code == 204


class TestOpenStreams:
    async def test_logout_ends_the_streams_of_its_session_on_every_instance(
        self, pair: tuple[Backend, Backend]
    ) -> None:
        one, two = pair
        await one.add_user(ALICE)
        mine, other = await login(one, ALICE), await login(two, ALICE)
        async with (
            sse(one.http, token=mine["access_token"]) as here,
            sse(two.http, token=mine["access_token"]) as there,
            sse(two.http, token=other["access_token"]) as bystander,
        ):
            headers = bearer(mine["access_token"])
            await one.http.post("/auth/logout", headers=headers)
            for client in (here, there):
                await client.until_ended(3)
                assert client.comments == ["the session has ended: log in again"]
            assert not bystander.ended
            headers = bearer(other["access_token"])
            body = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
            changed = await two.http.post("/auth/password/change", headers=headers, json=body)
            assert changed.status_code == 204
            await check_still_open(two, bystander)
        exposed = (await two.http.get("/metrics")).text
        assert 'reason="session_ended",scope="feed"} 1.0' in exposed

    @pytest.mark.parametrize(
        "change", ["role", "password change", "password reset", "second factor", "token reuse"]
    )
    async def test_changes_end_the_streams_of_other_sessions_on_every_instance(
        self, pair: tuple[Backend, Backend], environment: Environment, change: str
    ) -> None:
        one, two = pair
        await one.add_user(ALICE)
        bob = await one.add_user("bob@shield.test")
        mine, other = await login(one, ALICE), await login(two, ALICE)
        async with (
            sse(one.http, token=mine["access_token"]) as own,
            sse(one.http, token=other["access_token"]) as here,
            sse(two.http, token=other["access_token"]) as there,
            sse(two.http, token=two.token_of(bob)) as bystander,
        ):
            await CHANGES[change](one, environment, mine, other)
            for client in (here, there):
                await client.until_ended(5)
                assert client.comments == [CLOSING[change]]
            if change in {"role", "password reset"}:
                await own.until_ended(5)
            else:
                await check_still_open(one, own)
            await check_still_open(two, bystander)

    async def test_late_notice_of_a_change_does_not_end_a_stream_opened_after_it(
        self, backend: Backend, environment: Environment
    ) -> None:
        alice = await backend.add_user(ALICE)
        tokens = await login(backend, ALICE)
        await change_role(backend, environment, tokens, tokens)
        async with sse(backend.http, token=tokens["access_token"]) as client:
            await check_still_open(backend, client)
        await end_sessions(backend, alice)
        tokens = await login(backend, ALICE)
        async with sse(backend.http, token=tokens["access_token"]) as client:
            await check_still_open(backend, client)

    async def test_late_commit_of_an_earlier_change_is_not_missed(
        self, backend: Backend, environment: Environment
    ) -> None:
        alice, bob = await backend.add_user(ALICE), await backend.add_user("bob@shield.test")
        statement = "INSERT INTO access_changes (user_id, why) VALUES ($1, 'deactivation')"
        async with (
            sse(backend.http, token=backend.token_of(alice)) as slow,
            sse(backend.http, token=backend.token_of(bob)) as quick,
        ):
            async with environment.database.transaction():
                await environment.query(statement, alice.id)
                await environment.query("UPDATE users SET active = false WHERE id = $1", alice.id)
                await end_sessions(backend, bob)
                await quick.until_ended(10)
                assert not slow.ended
            await slow.until_ended(10)

    async def test_change_while_a_stream_opens_is_not_missed(self, backend: Backend) -> None:
        alice = await backend.add_user(ALICE)
        access = await backend.services.auth.access.authenticate(backend.token_of(alice))
        await end_sessions(backend, alice)
        await wait_until_changes_are_known(backend)
        ended: list[str] = []
        with backend.services.auth.open_streams.registered(access, ended.append):
            await until(lambda: ended == ["session_ended"])


async def end_sessions(backend: Backend, user: User) -> None:
    """End the sessions of an account, which stays active."""
    async with backend.services.database.transaction() as session:
        reason = AccessChangeReason.DEACTIVATION
        await backend.services.auth.access.publish_change(session, user_id=user.id, reason=reason)


async def change_role(
    one: Backend, _environment: Environment, mine: Tokens, _other: Tokens
) -> None:
    admin = bearer(one.token_of(await one.add_user("admin@shield.test", Role.ADMIN)))
    alice = (await one.http.get("/auth/me", headers=bearer(mine["access_token"]))).json()["id"]
    path = f"/admin/users/{alice}/role"
    done = await one.http.put(path, json={"role": "contributor"}, headers=admin)
    assert done.status_code == 200, done.text


async def change_password(
    one: Backend, _environment: Environment, mine: Tokens, _other: Tokens
) -> None:
    body = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
    headers = bearer(mine["access_token"])
    done = await one.http.post("/auth/password/change", json=body, headers=headers)
    assert done.status_code == 204, done.text


async def reset_password(
    one: Backend, _environment: Environment, mine: Tokens, _other: Tokens
) -> None:
    admin = bearer(one.token_of(await one.add_user("admin@shield.test", Role.ADMIN)))
    alice = (await one.http.get("/auth/me", headers=bearer(mine["access_token"]))).json()["id"]
    link = await one.http.post(f"/admin/users/{alice}/reset-link", headers=admin)
    body = {"token": link.json()["token"], "password": NEW_PASSWORD}
    done = await one.http.post("/auth/password/reset", json=body)
    assert done.status_code == 204, done.text


async def turn_on_second_factor(
    one: Backend, _environment: Environment, mine: Tokens, _other: Tokens
) -> None:
    headers = bearer(mine["access_token"])
    begun = await one.http.post("/auth/mfa/setup", json={"password": PASSWORD}, headers=headers)
    code = pyotp.TOTP(begun.json()["secret"]).now()
    done = await one.http.post("/auth/mfa/confirm", json={"code": code}, headers=headers)
    assert done.status_code == 200, done.text


async def reuse_token(one: Backend, environment: Environment, _mine: Tokens, other: Tokens) -> None:
    assert (await refresh(one, other)).status_code == 200
    await shift(environment, "rotated_at", seconds=6)
    assert (await refresh(one, other)).status_code == 401


CHANGES: Mapping[str, Callable[[Backend, Environment, Tokens, Tokens], Awaitable[None]]] = {
    "role": change_role,
    "password change": change_password,
    "password reset": reset_password,
    "second factor": turn_on_second_factor,
    "token reuse": reuse_token,
}
CLOSING = dict.fromkeys(CHANGES, "the session has ended: log in again") | {
    "role": "your permissions have changed: reconnect without an id"
}


async def check_still_open(backend: Backend, client: SseClient) -> None:
    await wait_until_changes_are_known(backend)
    assert not client.ended


async def wait_until_changes_are_known(backend: Backend) -> None:
    """Wait until the instance knows all changes so far."""
    watcher, now = backend.revocation_watcher, datetime.now(UTC)
    await until(lambda: watcher._polled_at > now)


class TestSigningKeyRotation:
    """The three deployments of docs/operations.md, while instances of two of them run."""

    async def test_instances_with_old_and_new_key_accept_each_others_tokens(
        self, environment: Environment
    ) -> None:
        old_key, new_key = "an-old-key-" * 4, "a-new-key-" * 4
        before = environment.settings(JWT_SECRET=old_key, JWT_PREVIOUS_SECRETS=new_key)
        after = environment.settings(
            JWT_SECRET=new_key, JWT_PREVIOUS_SECRETS=old_key, REDIS_CONSUMER_NAME="host-8003"
        )
        async with running(before) as old, running(after) as new:
            await old.add_user(ALICE)
            for giver, taker in ((old, new), (new, old)):
                tokens = await login(giver, ALICE)
                assert await is_logged_in(taker, tokens)
                headers = bearer(tokens["access_token"])
                ticket = (await giver.http.post("/auth/ticket", headers=headers)).json()["ticket"]
                async with sse(taker.http, f"/events?ticket={ticket}") as stream:
                    assert not stream.ended
                renewed = (await refresh(taker, tokens)).json()
                assert await is_logged_in(giver, renewed)

    async def test_revoked_key_invalidates_access_tokens_only(
        self, environment: Environment
    ) -> None:
        async with running(environment.settings(JWT_SECRET="an-old-key-" * 4)) as old:
            await old.add_user(ALICE)
            tokens = await login(old, ALICE)
        async with running(environment.settings(JWT_SECRET="a-new-key-" * 4)) as new:
            assert not await is_logged_in(new, tokens)
            assert await is_logged_in(new, (await refresh(new, tokens)).json())


class TestOutage:
    async def test_cached_access_is_used_without_postgresql(
        self, environment: Environment, database_proxy: TcpProxy
    ) -> None:
        async with running(environment.settings(DATABASE_URL=database_proxy.url)) as backend:
            await backend.add_user(ALICE)
            mine, gone = await login(backend, ALICE), await login(backend, ALICE)
            await environment.query("UPDATE users SET role = 'admin'")
            assert await is_logged_in(backend, mine)
            await backend.http.post("/auth/logout", headers=bearer(gone["access_token"]))
            assert not await is_logged_in(backend, gone)
            await database_proxy.refuse()
            me = await backend.http.get("/auth/me", headers=bearer(mine["access_token"]))
            assert me.json()["role"] == "admin"
            assert not await is_logged_in(backend, gone)
            async with sse(backend.http, token=mine["access_token"]) as client:
                assert not client.ended
            check_problem(await refresh(backend, mine), 503, "database-unavailable")
            await database_proxy.accept()
            await until(lambda: backend.revocation_watcher.status == "watching")
            assert (await refresh(backend, mine)).status_code == 200

    @pytest.mark.parametrize("reason", ["logout", "password change"])
    async def test_known_end_of_a_session_is_kept_without_postgresql(
        self, backend: Backend, environment: Environment, database_proxy: TcpProxy, reason: str
    ) -> None:
        settings = environment.settings(
            DATABASE_URL=database_proxy.url, REDIS_CONSUMER_NAME="host-8003"
        )
        async with running(settings) as other:
            await backend.add_user(ALICE)
            ended, changing = await login(backend, ALICE), await login(backend, ALICE)
            headers = bearer(ended["access_token"])
            if reason == "logout":
                answer = await backend.http.post("/auth/logout", headers=headers)
            else:
                body = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
                headers = bearer(changing["access_token"])
                answer = await backend.http.post(
                    "/auth/password/change", headers=headers, json=body
                )
            assert answer.status_code == 204
            await wait_until_changes_are_known(other)
            await database_proxy.refuse()
            assert not await is_logged_in(other, ended)
            await database_proxy.accept()
            await until(lambda: other.revocation_watcher.status == "watching")

    async def test_unknown_session_has_the_lowest_role_without_postgresql(
        self, backend: Backend, environment: Environment, database_proxy: TcpProxy
    ) -> None:
        settings = environment.settings(
            DATABASE_URL=database_proxy.url, REDIS_CONSUMER_NAME="host-8003"
        )
        async with running(settings) as other:
            admin = await backend.add_user("admin@shield.test", Role.ADMIN)
            token = backend.token_of(admin)
            await database_proxy.refuse()
            me = await other.http.get("/auth/me", headers=bearer(token))
            assert me.json()["role"] == "viewer"
            config = await other.http.get("/admin/config", headers=bearer(token))
            check_problem(config, 403, "not-permitted")
            async with sse(other.http, token=token) as stream:
                await environment.publish(shield_event(job="theirs", user=str(uuid4())))
                (mine,) = await environment.publish(shield_event(job="mine", user=str(admin.id)))
                await stream.until(lambda it: it.ids)
                assert stream.ids == [str(mine)]
            await database_proxy.accept()
            await until(lambda: other.revocation_watcher.status == "watching")
            me = await other.http.get("/auth/me", headers=bearer(token))
            assert me.json()["role"] == "admin"

    async def test_changes_before_the_first_connection_are_not_missed(
        self, backend: Backend, environment: Environment, database_proxy: TcpProxy
    ) -> None:
        await backend.add_user(ALICE)
        tokens = await login(backend, ALICE)
        await database_proxy.refuse()
        settings = environment.settings(
            DATABASE_URL=database_proxy.url, REDIS_CONSUMER_NAME="host-8003"
        )
        async with running(settings, healthy=False) as other:
            await until(lambda: other.services.events.tailer.status == "following")
            async with sse(other.http, token=tokens["access_token"]) as stream:
                headers = bearer(tokens["access_token"])
                left = await backend.http.post("/auth/logout", headers=headers)
                assert left.status_code == 204
                await database_proxy.accept()
                await stream.until_ended(20)


async def test_session_that_ends_for_an_unknown_reason_of_a_later_release_ends_its_streams(
    backend: Backend, environment: Environment
) -> None:
    alice = await backend.add_user(ALICE)
    async with sse(backend.http, token=backend.token_of(alice)) as client:
        await environment.query("UPDATE sessions SET ended_at = now()")
        statement = "INSERT INTO access_changes (user_id, why) VALUES ($1, 'a new reason')"
        await environment.query(statement, alice.id)
        await client.until_ended(3)
    assert (await backend.health())["checks"]["access"] == {"status": "ok", "detail": "watching"}
