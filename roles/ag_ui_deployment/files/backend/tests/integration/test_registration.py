"""Invitations, open registration and forgotten passwords, with a real mail server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from src.models.role import Role
from src.services import link_tokens, mail_service
from src.services.audit_logger import Action, Outcome
from tests.integration.test_api_endpoints import check_problem
from tests.support.accounts import ask_login, bearer, is_in, login, recording
from tests.support.mail_server import (
    PASSWORD as MAIL_PASSWORD,
)
from tests.support.mail_server import (
    USER,
    MailServer,
    mail_server,
    make_certificate,
)
from tests.support.server import Backend, running
from tests.support.waiting import until
from tests.support.world import World

ALICE = "alice@shield.test"
NEW = "another staple for the horse"
SITE = "https://shield.test/app"


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mail is tried again without a wait."""
    monkeypatch.setattr(mail_service, "_WAITS", (0.01, 0.01))


@asynccontextmanager
async def mailing(
    world: World, box: MailServer, scheme: str = "smtp", **settings: Any
) -> AsyncIterator[Backend]:
    url = f"{scheme}://127.0.0.1:{box.port}"
    given = {"SMTP_URL": url, "PUBLIC_URL": SITE, "REGISTRATION": "open"} | settings
    async with running(world.settings(**given)) as backend:
        yield backend


async def post(backend: Backend, path: str, **body: Any) -> httpx.Response:
    return await backend.http.post(f"/auth{path}", json=body)


async def invite(backend: Backend, **body: Any) -> httpx.Response:
    admin = await backend.add_user("admin@shield.test", Role.ADMIN)
    headers = bearer(backend.token_of(admin))
    return await backend.http.post("/admin/users/invite", json=body, headers=headers)


async def addresses(world: World) -> list[str]:
    return [row["email"] for row in await world.query("SELECT email FROM users ORDER BY email")]


class TestForgottenPasswords:
    async def test_from_the_mail_to_the_new_password(self, world: World) -> None:
        async with mail_server() as box, mailing(world, box) as backend, recording() as events:
            await backend.add_user(ALICE)
            tokens = await login(backend, ALICE)
            await world.query("UPDATE users SET failed_logins = 9, locked_until = now() + '1 day'")
            known = await post(backend, "/password/forgot", email=" Alice@SHIELD.test")
            await until(lambda: box.mails)
            (mail,) = box.mails
            assert mail["To"] == ALICE
            assert f"{SITE}/reset-password#token=" in mail.get_content()
            assert box.envelopes[0].rcpt_tos == [ALICE]
            for other in ("nobody@shield.test", "no address", "x\r\nBcc: y@shield.test", "'; --"):
                answer = await post(backend, "/password/forgot", email=other)
                assert (answer.status_code, answer.json()) == (202, known.json())
            token = await box.token()
            assert token not in str(await world.query("SELECT * FROM account_tokens"))
            for weak in ("short", "alice@shield.test", "password1234"):
                rejected = await post(backend, "/password/reset", token=token, password=weak)
                (error,) = check_problem(rejected, 422, "password-rejected")["errors"]
                assert error["field"] == "body.password"
            answers = await asyncio.gather(
                *(post(backend, "/password/reset", token=token, password=NEW) for _ in range(3))
            )
            assert sorted(answer.status_code for answer in answers) == [204, 422, 422]
            again = await post(backend, "/password/reset", token=token, password=NEW)
            (error,) = check_problem(again, 422, "link-not-valid")["errors"]
            assert error["field"] == "body.token"
            assert not await is_in(backend, tokens)
            check_problem(await ask_login(backend, ALICE), 401, "wrong-credentials")
            await login(backend, ALICE, NEW)
            assert box.mails == []
        outcomes = [event.outcome for event in events if event.action is Action.PASSWORD_RESET]
        assert outcomes.count(Outcome.SUCCESS) == 2
        assert outcomes.count(Outcome.FAILURE) == 3
        assert token not in str(events)

    async def test_a_link_ends_by_time_and_with_the_password_that_it_replaces(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with mail_server() as box, mailing(world, box) as backend:
            alice = await backend.add_user(ALICE)
            await post(backend, "/password/forgot", email=ALICE)
            expired = await box.token()
            # Who asks at once again gets no second mail; it has been sent when the next one is.
            await post(backend, "/password/forgot", email=ALICE)
            await world.query(
                "UPDATE account_tokens SET expires_at = now(), created_at = now() - '1 hour'::interval"
            )
            monkeypatch.setattr(link_tokens, "_NOT_AGAIN_FOR", timedelta(0))
            await post(backend, "/password/forgot", email=ALICE)
            old = await box.token()
            changed = await backend.http.post(
                "/auth/password/change",
                json={
                    "current_password": "correct horse battery staple",
                    "new_password": "quite other words in a row",
                },
                headers=bearer(backend.token_of(alice)),
            )
            assert changed.status_code == 204, changed.text
            for token in (expired, old, "x", "x" * 200, "'; DROP TABLE users; --", "\0"):
                answer = await post(backend, "/password/reset", token=token, password=NEW)
                check_problem(answer, 422, "link-not-valid")
            answer = await post(backend, "/password/reset", token="x" * 201, password=NEW)
            check_problem(answer, 422, "invalid-request")
            # However often somebody asks, a mailbox is not filled.
            for _ in range(9):
                await post(backend, "/password/forgot", email=ALICE)
            await backend.services.background.stop(10)
            assert len(box.mails) == 4
            await world.query("UPDATE users SET active = false")
            token = await box.token()
            answer = await post(backend, "/password/reset", token=token, password=NEW)
            check_problem(answer, 422, "link-not-valid")


class TestRegistration:
    async def test_open_an_address_becomes_an_account_when_it_is_confirmed(
        self, world: World
    ) -> None:
        async with mail_server() as box, mailing(world, box) as backend, recording() as events:
            body = {"email": "Alice@Shield.test", "password": NEW, "name": "Alice Liddell"}
            first = await post(backend, "/register", **body)
            assert first.status_code == 202
            token = await box.token()
            assert await addresses(world) == []
            check_problem(await ask_login(backend, ALICE, NEW), 401, "wrong-credentials")
            answers = await asyncio.gather(
                *(post(backend, "/verify-email", token=token) for _ in range(3))
            )
            assert sorted(answer.status_code for answer in answers) == [201, 422, 422]
            (made,) = [answer.json() for answer in answers if answer.status_code == 201]
            assert (made["email"], made["role"], made["memberships"]) == (ALICE, "viewer", [])
            await login(backend, ALICE, NEW)
            # The same answer for an address that has an account; its owner is told by mail.
            again = await post(backend, "/register", **body)
            assert (again.status_code, again.json()) == (202, first.json())
            await until(lambda: box.mails)
            assert "/reset-password#" in box.mails[0].get_content()
            check_problem(await post(backend, "/verify-email", token=token), 422, "link-not-valid")
        assert [event.action for event in events if event.outcome is Outcome.SUCCESS][:2] == [
            Action.REGISTER,
            Action.EMAIL_VERIFY,
        ]
        assert NEW not in str(events)
        assert token not in str(events)

    async def test_what_cannot_be_registered(self, world: World) -> None:
        async with mail_server() as box, mailing(world, box) as backend:
            good = {"email": ALICE, "password": NEW}
            for field, value in (
                ("email", "no address"),
                ("email", "\u0430lice@shield.test"),
                ("email", "alice@shield.test\nBcc: eve@shield.test"),
                ("email", "a" * 400),
                ("password", "alice@shield.test"),
                ("password", "x" * 5000),
                ("name", "a\r\nb"),
                ("invitation", "both"),
            ):
                answer = await post(backend, "/register", **(good | {field: value}))
                assert answer.status_code == 422, (field, answer.text)
                (error, *_) = answer.json()["errors"]
                assert error["field"] in {f"body.{field}", "body"}
            check_problem(await post(backend, "/register", password=NEW), 422, "invalid-request")
            await backend.services.background.stop(10)
            assert box.mails == []
            assert await world.query("SELECT * FROM account_tokens") == []

    async def test_by_invitation(self, world: World) -> None:
        invited = {
            "email": ALICE,
            "role": "contributor",
            "memberships": [{"workspace": "red", "role": "admin"}],
        }
        await world.query("INSERT INTO workspaces (name) VALUES ('red')")
        async with (
            mail_server() as box,
            mailing(world, box, REGISTRATION="invite") as backend,
        ):
            answer = await invite(backend, **invited)
            assert answer.status_code == 201, answer.text
            assert (answer.json()["mailed"], answer.json()["link"]) == (True, None)
            token = await box.token()
            uninvited = await post(backend, "/register", email="eve@shield.test", password=NEW)
            check_problem(uninvited, 403, "registration-closed")
            wrong = await post(backend, "/register", invitation="x", password=NEW)
            (error,) = check_problem(wrong, 422, "link-not-valid")["errors"]
            assert error["field"] == "body.invitation"
            # An invitation confirms nothing else.
            check_problem(await post(backend, "/verify-email", token=token), 422, "link-not-valid")
            made = await post(backend, "/register", invitation=token, password=NEW, name="Alice")
            assert made.status_code == 201, made.text
            tokens = await login(backend, ALICE, NEW)
            me = await backend.http.get("/auth/me", headers=bearer(tokens["access_token"]))
            assert (me.json()["role"], me.json()["memberships"]) == (
                "contributor",
                [{"workspace": "red", "role": "admin"}],
            )
            again = await post(backend, "/register", invitation=token, password=NEW)
            check_problem(again, 422, "link-not-valid")

    async def test_closed_and_without_mail_an_admin_does_it_by_hand(self, world: World) -> None:
        async with running(world.settings()) as backend:
            check_problem(
                await post(backend, "/register", email=ALICE, password=NEW),
                403,
                "registration-closed",
            )
            forgot = await post(backend, "/password/forgot", email=ALICE)
            check_problem(forgot, 409, "mail-not-configured")
            closed = await invite(backend, email=ALICE)
            check_problem(closed, 403, "registration-closed")
            alice = await backend.add_user(ALICE)
            headers = bearer((await login(backend, "admin@shield.test"))["access_token"])
            link = await backend.http.post(f"/admin/users/{alice.id}/reset-link", headers=headers)
            assert link.status_code == 201
            assert link.json()["link"].endswith(f"/reset-password#token={link.json()['token']}")
            done = await post(backend, "/password/reset", token=link.json()["token"], password=NEW)
            assert done.status_code == 204
            await login(backend, ALICE, NEW)
        async with running(world.settings(REGISTRATION="invite")) as backend:
            headers = bearer((await login(backend, "admin@shield.test"))["access_token"])
            answer = await backend.http.post(
                "/admin/users/invite", json={"email": "bob@shield.test"}, headers=headers
            )
            assert answer.json()["mailed"] is False
            token = answer.json()["link"].partition("#token=")[2]
            made = await post(backend, "/register", invitation=token, password=NEW)
            assert made.json()["email"] == "bob@shield.test"
            taken = await backend.http.post(
                "/admin/users/invite", json={"email": ALICE}, headers=headers
            )
            check_problem(taken, 409, "account-exists")

    async def test_who_asks_too_often_is_told_to_wait(self, world: World) -> None:
        limits = {"RATE_LOGIN_PER_ADDRESS": "4/hour"}
        async with running(world.settings(**limits), healthy=False) as backend:
            for path, body in (
                ("/password/forgot", {"email": ALICE}),
                ("/password/reset", {"token": "x", "password": NEW}),
                ("/verify-email", {"token": "x"}),
                ("/register", {"invitation": "x", "password": NEW}),
            ):
                assert (await post(backend, path, **body)).status_code != 429
            for path, body in (
                ("/password/forgot", {"email": ALICE}),
                ("/password/reset", {"token": "x", "password": NEW}),
                ("/verify-email", {"token": "x"}),
                ("/register", {"email": ALICE, "password": NEW}),
            ):
                answer = await post(backend, path, **body)
                check_problem(answer, 429, "too-many-requests")
                assert int(answer.headers["retry-after"]) > 0


class TestMailServers:
    async def forgot(self, backend: Backend) -> None:
        answer = await post(backend, "/password/forgot", email=ALICE)
        assert answer.status_code == 202
        await backend.services.background.stop(10)

    @pytest.mark.parametrize("scheme", ["smtp+starttls", "smtps"])
    async def test_encrypted_with_a_login(self, world: World, tmp_path: Path, scheme: str) -> None:
        context, pem = make_certificate(tmp_path)
        starttls = scheme != "smtps"
        async with mail_server(context, starttls=starttls, login=starttls) as box:
            user = f"{USER}:{quote(MAIL_PASSWORD, safe='')}@" if starttls else ""
            url = f"{scheme}://{user}127.0.0.1:{box.port}"
            trusting = {"SMTP_URL": url, "SMTP_CA_FILE": str(pem)}
            async with running(world.settings(**trusting), healthy=False) as backend:
                await backend.add_user(ALICE)
                await self.forgot(backend)
                assert box.encrypted == [True]
                assert box.logins == ([USER] if starttls else [])
            # Without the authority's certificate nothing is told to a server that may be false.
            await world.query("DELETE FROM account_tokens")
            async with running(world.settings(SMTP_URL=url), healthy=False) as backend:
                await self.forgot(backend)
                assert len(box.mails) == 1

    async def test_one_that_offers_no_encryption_gets_nothing(self, world: World) -> None:
        async with mail_server() as box, mailing(world, box, "smtp+starttls") as backend:
            await backend.add_user(ALICE)
            await self.forgot(backend)
            assert (box.mails, box.attempts) == ([], 0)

    async def test_one_that_refuses_for_good_is_asked_once_and_for_now_again(
        self, world: World
    ) -> None:
        async with mail_server() as box, mailing(world, box) as backend:
            await backend.add_user(ALICE)
            box.refuse_with = "550 no such mailbox"
            await self.forgot(backend)
            assert (box.mails, box.attempts) == ([], 1)
            await world.query("DELETE FROM account_tokens")
            box.refuse_with = "451 later"
            await self.forgot(backend)
            assert (box.mails, box.attempts) == ([], 4)

    async def test_one_that_is_down_changes_no_answer(self, world: World) -> None:
        async with mail_server() as gone:
            pass
        async with mailing(world, gone) as backend:
            await backend.add_user(ALICE)
            await self.forgot(backend)
