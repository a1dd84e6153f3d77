"""Invitations, open registration and forgotten passwords, with a real mail server."""

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from src.models.account import LinkPurpose
from src.models.permissions import Role
from src.models.user import User
from src.services.accounts import email_sender, link_tokens
from src.services.accounts.email_sender import EmailSender
from src.services.accounts.email_templates import EmailTemplates
from src.services.accounts.link_tokens import EmailLink
from src.services.audit_logger import Action, Outcome
from src.services.auth import passwords as auth_passwords
from src.utils.background_jobs import BackgroundJobs
from tests.support.accounts import ask_login, bearer, is_logged_in, login, recording
from tests.support.environment import Environment
from tests.support.mail_server import (
    PASSWORD as MAIL_PASSWORD,
)
from tests.support.mail_server import (
    USER,
    MailServer,
    mail_server,
    make_certificate,
)
from tests.support.problems import check_problem
from tests.support.server import Backend, running
from tests.support.waiting import until

ALICE = "alice@shield.test"
NEW = "another staple for the horse"
SITE = "https://shield.test/app"


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry mail without delay."""
    monkeypatch.setattr(email_sender, "_RETRY_SECONDS", (0.01, 0.01))


@asynccontextmanager
async def running_with_mail(
    environment: Environment, box: MailServer, scheme: str = "smtp", **settings: Any
) -> AsyncIterator[Backend]:
    url = f"{scheme}://127.0.0.1:{box.port}"
    given = {"SMTP_URL": url, "PUBLIC_URL": SITE, "REGISTRATION": "open"} | settings
    async with running(environment.settings(**given)) as backend:
        yield backend


async def post(backend: Backend, path: str, **body: Any) -> httpx.Response:
    return await backend.http.post(f"/auth{path}", json=body)


async def invite(backend: Backend, **body: Any) -> httpx.Response:
    admin = await backend.add_user("admin@shield.test", Role.ADMIN)
    return await admin_request(backend, admin, "POST", "/invite", body)


async def admin_request(
    backend: Backend, admin: User, method: str, path: str, body: Any = None
) -> httpx.Response:
    headers = bearer(backend.token_of(admin))
    return await backend.http.request(method, f"/admin/users{path}", headers=headers, json=body)


async def addresses(environment: Environment) -> list[str]:
    return [
        row["email"] for row in await environment.query("SELECT email FROM users ORDER BY email")
    ]


class TestPasswordReset:
    async def test_reset_by_mail(self, environment: Environment) -> None:
        async with (
            mail_server() as box,
            running_with_mail(environment, box) as backend,
            recording() as events,
        ):
            alice = await backend.add_user(ALICE)
            tokens = await login(backend, ALICE)
            await environment.query(
                "INSERT INTO login_sources SELECT id, 'unknown networks', 9, now(), now() + '1 day'"
                " FROM users"
            )
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
            assert token not in str(await environment.query("SELECT * FROM account_tokens"))
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
            assert not await is_logged_in(backend, tokens)
            check_problem(await ask_login(backend, ALICE), 401, "wrong-credentials")
            await login(backend, ALICE, NEW)
            assert box.mails == []
        resets = [event for event in events if event.action is Action.PASSWORD_RESET]
        failures = [event for event in resets if event.outcome is Outcome.FAILURE]
        sent, done = [event for event in resets if event not in failures]
        assert len(failures) == 3
        # Anybody can request the link; only the account's owner receives it.
        assert (sent.actor, sent.target) == (None, f"user:{alice.id}")
        assert (done.actor, done.target) == (ALICE, f"user:{alice.id}")
        assert token not in str(events)

    async def test_link_expires_and_is_revoked_by_a_new_password(
        self, environment: Environment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with mail_server() as box, running_with_mail(environment, box) as backend:
            alice = await backend.add_user(ALICE)
            await post(backend, "/password/forgot", email=ALICE)
            expired = await box.token()
            # An immediate second request sends no mail; the mail of the next request shows that.
            await post(backend, "/password/forgot", email=ALICE)
            await environment.query(
                "UPDATE account_tokens SET expires_at = now(), created_at = now() - '1 hour'::interval"
            )
            monkeypatch.setattr(link_tokens, "_MIN_INTERVAL", timedelta(0))
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
            # Repeated requests do not fill a mailbox.
            for _ in range(9):
                await post(backend, "/password/forgot", email=ALICE)
            await backend.services.background.stop(10)
            assert len(box.mails) == 4
            await environment.query("UPDATE users SET active = false")
            token = await box.token()
            answer = await post(backend, "/password/reset", token=token, password=NEW)
            check_problem(answer, 422, "link-not-valid")


class TestRegistration:
    async def test_registration_is_completed_by_confirmation(
        self, environment: Environment
    ) -> None:
        async with (
            mail_server() as box,
            running_with_mail(environment, box) as backend,
            recording() as events,
        ):
            body = {"email": "Alice@Shield.test", "name": "Alice Pleasance Liddell"}
            first = await post(backend, "/register", **body)
            assert first.status_code == 202
            token = await box.token()
            assert await addresses(environment) == []
            for weak in ("short", "Liddell-Pleasance-12"):
                rejected = await post(backend, "/verify-email", token=token, password=weak)
                (error,) = check_problem(rejected, 422, "password-rejected")["errors"]
                assert error["field"] == "body.password"
            answers = await asyncio.gather(
                *(post(backend, "/verify-email", token=token, password=NEW) for _ in range(3))
            )
            assert sorted(answer.status_code for answer in answers) == [201, 422, 422]
            (created,) = [answer.json() for answer in answers if answer.status_code == 201]
            assert (created["email"], created["role"], created["memberships"]) == (
                ALICE,
                "viewer",
                [],
            )
            await login(backend, ALICE, NEW)
            # The response is the same for an existing account; its owner is notified by mail.
            again = await post(backend, "/register", **body)
            assert (again.status_code, again.json()) == (202, first.json())
            await until(lambda: box.mails)
            assert "/reset-password#" in box.mails[0].get_content()
            used = await post(backend, "/verify-email", token=token, password=NEW)
            (error,) = check_problem(used, 422, "link-not-valid")["errors"]
            assert error["field"] == "body.token"
        assert [event.action for event in events if event.outcome is Outcome.SUCCESS][:2] == [
            Action.REGISTER,
            Action.EMAIL_VERIFY,
        ]
        assert NEW not in str(events)
        assert token not in str(events)

    async def test_password_is_set_only_by_the_owner_of_the_address(
        self, environment: Environment
    ) -> None:
        async with mail_server() as box, running_with_mail(environment, box) as backend:
            theirs = "chosen by somebody else at all"
            refused = await post(backend, "/register", email=ALICE, password=theirs)
            (error,) = check_problem(refused, 422, "invalid-request")["errors"]
            assert error["field"] == "body.password"
            # An earlier release accepted the password and stored it with the link.
            await environment.query(
                "INSERT INTO account_tokens (token_hash, purpose, email, password_hash, expires_at)"
                " VALUES ($1, 'registration', $2, 'x', now() + '1 hour'::interval)",
                hashlib.sha256(b"of-old").hexdigest(),
                ALICE,
            )
            for body in ({"token": "of-old", "password": NEW}, {"token": "of-old"}):
                answer = await post(backend, "/verify-email", **body)
                assert answer.status_code == 422
            await post(backend, "/register", email=ALICE)
            missing = await post(backend, "/verify-email", token=(token := await box.token()))
            (error,) = check_problem(missing, 422, "invalid-request")["errors"]
            assert error["field"] == "body.password"
            created = await post(backend, "/verify-email", token=token, password=NEW)
            assert created.status_code == 201
            check_problem(await ask_login(backend, ALICE, theirs), 401, "wrong-credentials")
            await login(backend, ALICE, NEW)
            assert len(await addresses(environment)) == 1

    @pytest.mark.parametrize("mode", ["closed", "invite"])
    async def test_link_is_invalid_once_registration_is_closed(
        self, environment: Environment, mode: str
    ) -> None:
        async with mail_server() as box, running_with_mail(environment, box) as backend:
            await post(backend, "/register", email=ALICE)
            token = await box.token()
        async with running(environment.settings(REGISTRATION=mode), healthy=False) as backend:
            late = await post(backend, "/verify-email", token=token, password=NEW)
            check_problem(late, 403, "registration-closed")
            assert await addresses(environment) == []

    async def test_address_with_an_account_in_the_meantime(self, environment: Environment) -> None:
        async with mail_server() as box, running_with_mail(environment, box) as backend:
            await post(backend, "/register", email=ALICE)
            token = await box.token()
            await backend.add_user(ALICE)
            taken = await post(backend, "/verify-email", token=token, password=NEW)
            problem = check_problem(taken, 409, "account-exists")
            assert [error["field"] for error in problem["errors"]] == ["body.token"]
            assert "/admin" not in problem["detail"]

    @pytest.mark.parametrize("path", ["/register", "/password/forgot"])
    async def test_concurrent_requests_send_one_mail(
        self, environment: Environment, path: str
    ) -> None:
        async with mail_server() as box, running_with_mail(environment, box) as backend:
            await backend.add_user("bob@shield.test")
            email = ALICE if path == "/register" else "bob@shield.test"
            answers = await asyncio.gather(*(post(backend, path, email=email) for _ in range(8)))
            assert {answer.status_code for answer in answers} == {202}
            await backend.services.background.stop(10)
            assert len(box.mails) == 1

    @pytest.mark.parametrize(
        "spellings",
        [
            ["name+{}@shield.test", "NAME+{}@shield.test"],
            ["name+{}@gmail.com", "n.a.m.e+{}@gmail.com", "na.me@googlemail.com"],
        ],
    )
    async def test_mail_limits_apply_to_the_mailbox(
        self, environment: Environment, spellings: list[str]
    ) -> None:
        async with mail_server() as box, running_with_mail(environment, box) as backend:

            async def register(email: str) -> int:
                assert (await post(backend, "/register", email=email)).status_code == 202
                await backend.services.background.stop(10)
                return len(box.mails)

            for n in range(6):
                assert await register(spellings[n % len(spellings)].format(n)) == 1
            for minute in range(1, 8):
                await environment.query(
                    "UPDATE account_tokens SET created_at = created_at - interval '1 minute'"
                )
                sent = await register(spellings[0].format(f"m{minute}"))
                assert sent == min(minute + 1, 5)
            # Other addresses do not use up the quota of the plain address, or of another mailbox.
            assert await register(spellings[0].replace("+{}", "")) == 6
            assert await register("other+1@shield.test") == 7

    async def test_request_limit_applies_to_the_mailbox(self, environment: Environment) -> None:
        limits = {"RATE_MAIL_PER_MAILBOX": "2/hour"}
        async with mail_server() as box, running_with_mail(environment, box, **limits) as backend:
            statuses = [
                (await post(backend, path, email=f"name+{n}@shield.test")).status_code
                for n, path in enumerate(["/register", "/password/forgot", "/register"])
            ]
            assert statuses == [202, 202, 429]

    async def test_request_limits_are_exact(self, environment: Environment) -> None:
        limits = {"RATE_MAIL_PER_MAILBOX": "2/hour", "RATE_LOGIN_PER_ADDRESS": "5/hour"}
        async with mail_server() as box, running_with_mail(environment, box, **limits) as backend:
            statuses = [
                (await post(backend, "/register", email=email)).status_code
                for email in [ALICE] * 3 + ["bob@shield.test"] * 3
            ]
            assert statuses == [202, 202, 429, 202, 202, 429]
            assert (
                await post(backend, "/verify-email", token="x", password=NEW)
            ).status_code == 429

    async def test_invalid_registrations_are_refused(self, environment: Environment) -> None:
        async with mail_server() as box, running_with_mail(environment, box) as backend:
            good = {"email": ALICE, "name": "Alice"}
            for field, value in (
                ("email", "no address"),
                ("email", "\u0430lice@shield.test"),
                ("email", "alice@shield.test\nBcc: eve@shield.test"),
                ("email", "a" * 400),
                ("password", NEW),
                ("password", "x" * 5000),
                ("name", "a\r\nb"),
            ):
                answer = await post(backend, "/register", **(good | {field: value}))
                assert answer.status_code == 422, (field, answer.text)
                (error, *_) = answer.json()["errors"]
                assert error["field"] == f"body.{field}"
            for body, named in (
                (good | {"invitation": "both", "password": NEW}, "body"),
                ({}, "body"),
                ({"password": NEW}, "body.password"),
                ({"invitation": "x"}, "body.password"),
            ):
                answer = await post(backend, "/register", **body)
                (error,) = check_problem(answer, 422, "invalid-request")["errors"]
                assert error["field"] == named
            await backend.services.background.stop(10)
            assert box.mails == []
            assert await environment.query("SELECT * FROM account_tokens") == []

    async def test_registration_by_invitation(self, environment: Environment) -> None:
        invited = {
            "email": ALICE,
            "role": "contributor",
            "memberships": [{"workspace": "red", "role": "admin"}],
        }
        await environment.query("INSERT INTO workspaces (name) VALUES ('red')")
        async with (
            mail_server() as box,
            running_with_mail(environment, box, REGISTRATION="invite") as backend,
        ):
            answer = await invite(backend, **invited)
            assert answer.status_code == 201, answer.text
            assert (answer.json()["mailed"], answer.json()["link"]) == (True, None)
            token = await box.token()
            uninvited = await post(backend, "/register", email="eve@shield.test")
            check_problem(uninvited, 403, "registration-closed")
            wrong = await post(backend, "/register", invitation="x", password=NEW)
            (error,) = check_problem(wrong, 422, "link-not-valid")["errors"]
            assert error["field"] == "body.invitation"
            # An invitation's token is invalid for any other purpose.
            confirmed = await post(backend, "/verify-email", token=token, password=NEW)
            check_problem(confirmed, 403, "registration-closed")
            reset = await post(backend, "/password/reset", token=token, password=NEW)
            check_problem(reset, 422, "link-not-valid")
            created = await post(backend, "/register", invitation=token, password=NEW, name="Alice")
            assert created.status_code == 201, created.text
            tokens = await login(backend, ALICE, NEW)
            me = await backend.http.get("/auth/me", headers=bearer(tokens["access_token"]))
            assert (me.json()["role"], me.json()["memberships"]) == (
                "contributor",
                [{"workspace": "red", "role": "admin"}],
            )
            again = await post(backend, "/register", invitation=token, password=NEW)
            check_problem(again, 422, "link-not-valid")

    async def test_links_without_mail_server(self, environment: Environment) -> None:
        async with running(environment.settings()) as backend:
            check_problem(
                await post(backend, "/register", email=ALICE),
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
        async with running(environment.settings(REGISTRATION="invite")) as backend:
            headers = bearer((await login(backend, "admin@shield.test"))["access_token"])
            answer = await backend.http.post(
                "/admin/users/invite", json={"email": "bob@shield.test"}, headers=headers
            )
            assert answer.json()["mailed"] is False
            token = answer.json()["link"].partition("#token=")[2]
            created = await post(backend, "/register", invitation=token, password=NEW)
            assert created.json()["email"] == "bob@shield.test"
            taken = await backend.http.post(
                "/admin/users/invite", json={"email": ALICE}, headers=headers
            )
            check_problem(taken, 409, "account-exists")

    async def test_rate_limit_of_anonymous_requests(self, environment: Environment) -> None:
        limits = {"RATE_LOGIN_PER_ADDRESS": "4/hour"}
        async with running(environment.settings(**limits), healthy=False) as backend:
            for path, body in (
                ("/password/forgot", {"email": ALICE}),
                ("/password/reset", {"token": "x", "password": NEW}),
                ("/verify-email", {"token": "x", "password": NEW}),
                ("/register", {"invitation": "x", "password": NEW}),
            ):
                assert (await post(backend, path, **body)).status_code != 429
            for path, body in (
                ("/password/forgot", {"email": ALICE}),
                ("/password/reset", {"token": "x", "password": NEW}),
                ("/verify-email", {"token": "x", "password": NEW}),
                ("/register", {"email": ALICE}),
            ):
                answer = await post(backend, path, **body)
                check_problem(answer, 429, "too-many-requests")
                assert int(answer.headers["retry-after"]) > 0


class TestInvitations:
    async def test_invitations_are_listed_and_withdrawn(self, environment: Environment) -> None:
        async with (
            running(environment.settings(REGISTRATION="invite")) as backend,
            recording() as events,
        ):
            await environment.query("INSERT INTO workspaces (name) VALUES ('red')")
            membership = {"workspace": "red", "role": "admin"}
            body = {"email": ALICE, "name": "Alice", "memberships": [membership]}
            wrong = [membership, {"workspace": "blue", "role": "viewer"}]
            refused = await invite(backend, **(body | {"memberships": wrong}))
            (error,) = check_problem(refused, 422, "invalid-request")["errors"]
            assert error["field"] == "body.memberships.1.workspace"
            headers = bearer((await login(backend, "admin@shield.test"))["access_token"])
            created = await backend.http.post("/admin/users/invite", json=body, headers=headers)
            assert created.headers["cache-control"] == "no-store"

            async def listed() -> Any:
                answer = await backend.http.get("/admin/users/invitations", headers=headers)
                assert answer.status_code == 200
                return answer.json()["items"]

            (one,) = await listed()
            assert {key: one[key] for key in one if key != "created_at"} == {
                "id": created.json()["id"],
                "email": ALICE,
                "name": "Alice",
                "role": "viewer",
                "memberships": [membership],
                "invited_by": "admin@shield.test",
                "expires_at": created.json()["expires_at"],
            }
            # A new invitation replaces it.
            path = "/admin/users/invite"
            again = await backend.http.post(path, json={"email": ALICE}, headers=headers)
            token = again.json()["link"].partition("#token=")[2]
            gone = await backend.http.delete(
                f"/admin/users/invitations/{one['id']}", headers=headers
            )
            check_problem(gone, 404, "invitation-not-found")
            (one,) = await listed()
            path = f"/admin/users/invitations/{one['id']}"
            assert (await backend.http.delete(path, headers=headers)).status_code == 204
            check_problem(
                await backend.http.delete(path, headers=headers), 404, "invitation-not-found"
            )
            assert await listed() == []
            late = await post(backend, "/register", invitation=token, password=NEW)
            check_problem(late, 422, "link-not-valid")
        invited, *_ = [event for event in events if event.action is Action.USER_INVITE]
        assert invited.details["memberships"] == [membership]
        (withdrawn,) = [event for event in events if event.action is Action.INVITATION_WITHDRAW]
        assert (withdrawn.actor, withdrawn.target) == (
            "admin@shield.test",
            f"invitation:{one['id']}",
        )

    @pytest.mark.parametrize("end", ["role = 'viewer'", "active = false"])
    async def test_links_are_revoked_with_the_rights_of_their_creator(
        self, environment: Environment, end: str
    ) -> None:
        async with running(environment.settings(REGISTRATION="invite")) as backend:
            alice = await backend.add_user(ALICE)
            rival, admin = [
                await backend.add_user(f"{name}@shield.test", Role.ADMIN) for name in ("r", "admin")
            ]
            body = {"email": "bob@shield.test"}
            invited = await admin_request(backend, rival, "POST", "/invite", body)
            token = invited.json()["link"].partition("#token=")[2]
            link = await admin_request(backend, rival, "POST", f"/{alice.id}/reset-link")
            assert link.headers["cache-control"] == "no-store"
            await environment.query(f"UPDATE users SET {end} WHERE id = $1", rival.id)  # noqa: S608 - as above
            assert (await admin_request(backend, admin, "GET", "/invitations")).json()[
                "items"
            ] == []
            created = await post(backend, "/register", invitation=token, password=NEW)
            check_problem(created, 422, "link-not-valid")
            reset = await post(backend, "/password/reset", token=link.json()["token"], password=NEW)
            check_problem(reset, 422, "link-not-valid")
            await login(backend, ALICE)
            assert "bob@shield.test" not in await addresses(environment)

    async def test_rights_are_checked_again_after_hashing(
        self, environment: Environment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Applies to a new account and to an invitation that is being accepted."""
        async with running(environment.settings(REGISTRATION="invite")) as backend:
            admin = await backend.add_user("admin@shield.test", Role.ADMIN)
            invited = await admin_request(backend, admin, "POST", "/invite", {"email": ALICE})
            token = invited.json()["link"].partition("#token=")[2]
            gate = threading.Event()
            hashing: list[str] = []

            def wait(_password: str) -> str:
                hashing.append("")
                return str(gate.wait(10))

            monkeypatch.setattr(auth_passwords._context, "hash", wait)
            body = {"email": "bob@shield.test", "password": NEW}
            both = asyncio.gather(
                admin_request(backend, admin, "POST", "", body),
                post(backend, "/register", invitation=token, password=NEW),
            )
            await until(lambda: len(hashing) == 2)
            await environment.query("UPDATE users SET role = 'viewer'")
            gate.set()
            created, accepted = await both
            check_problem(created, 403, "not-permitted")
            check_problem(accepted, 422, "link-not-valid")
            assert await addresses(environment) == ["admin@shield.test"]


class TestMailServers:
    async def forgot(self, backend: Backend) -> None:
        answer = await post(backend, "/password/forgot", email=ALICE)
        assert answer.status_code == 202
        await backend.services.background.stop(10)

    @pytest.mark.parametrize("scheme", ["smtp+starttls", "smtps"])
    async def test_encrypted_connection_and_login(
        self, environment: Environment, tmp_path: Path, scheme: str
    ) -> None:
        context, pem = make_certificate(tmp_path)
        starttls = scheme != "smtps"
        async with mail_server(context, starttls=starttls, login=starttls) as box:
            user = f"{USER}:{quote(MAIL_PASSWORD, safe='')}@" if starttls else ""
            url = f"{scheme}://{user}127.0.0.1:{box.port}"
            trusting = {"SMTP_URL": url, "SMTP_CA_FILE": str(pem)}
            async with running(environment.settings(**trusting), healthy=False) as backend:
                await backend.add_user(ALICE)
                await self.forgot(backend)
                assert box.encrypted == [True]
                assert box.logins == ([USER] if starttls else [])
            # Without the authority's certificate the client sends nothing to a server that may be
            # an impostor.
            await environment.query("DELETE FROM account_tokens")
            async with running(environment.settings(SMTP_URL=url), healthy=False) as backend:
                await self.forgot(backend)
                assert len(box.mails) == 1

    async def test_recipient_is_the_stored_address(self, environment: Environment) -> None:
        """No account can have such an address any more; earlier releases accepted it."""
        email = "=?utf-8?q?victim?=@corp.test"
        link = EmailLink("token", datetime.now(UTC))
        async with mail_server() as box, running_with_mail(environment, box) as backend:
            mails = EmailTemplates(
                EmailSender(backend.settings), BackgroundJobs(), backend.settings
            )
            await mails.send(LinkPurpose.RESET, email, link)
            assert box.recipients == [f"TO:<{email}>"]
            refused = await post(backend, "/register", email=email)
            (error,) = check_problem(refused, 422, "invalid-request")["errors"]
            assert error["field"] == "body.email"

    async def test_server_without_encryption_gets_no_mail(self, environment: Environment) -> None:
        async with (
            mail_server() as box,
            running_with_mail(environment, box, "smtp+starttls") as backend,
        ):
            await backend.add_user(ALICE)
            await self.forgot(backend)
            assert (box.mails, box.attempts) == ([], 0)

    async def test_permanent_errors_are_not_retried(self, environment: Environment) -> None:
        async with mail_server() as box, running_with_mail(environment, box) as backend:
            await backend.add_user(ALICE)
            box.refuse_with = "550 no such mailbox"
            await self.forgot(backend)
            assert (box.mails, box.attempts) == ([], 1)
            await environment.query("DELETE FROM account_tokens")
            box.refuse_with = "451 later"
            await self.forgot(backend)
            assert (box.mails, box.attempts) == ([], 4)

    async def test_unreachable_server_does_not_change_the_response(
        self, environment: Environment
    ) -> None:
        async with mail_server() as gone:
            pass
        async with running_with_mail(environment, gone) as backend:
            await backend.add_user(ALICE)
            await self.forgot(backend)
