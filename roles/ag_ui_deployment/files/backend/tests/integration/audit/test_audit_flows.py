"""Each action that must be recorded happens once; the audit log has all of them and no secrets."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pyotp
from structlog.testing import capture_logs

from src.models.event import StreamId
from src.models.permissions import Role
from src.services.audit_logger import Action
from tests.support.accounts import ask_login, bearer, login
from tests.support.agent import cancel, run_input, running_agent, whole_run
from tests.support.audit_log import Log
from tests.support.cli import cli_environment, run
from tests.support.environment import Environment
from tests.support.mail_server import MailServer, mail_server
from tests.support.scripted_gateway import ENDLESS, scripted_gateway
from tests.support.server import PASSWORD, Backend, running
from tests.support.uploads import Uploader, pdf
from tests.support.waiting import until

# Documents, questions, answers and passwords must not be recorded.
CONTENT = "the content that nobody else may read"
NEW_PASSWORD = "another staple for the horse"
GUESS = "hunter2 is a wrong password"
ALICE, BOB, ADMIN = "alice@shield.test", "bob@shield.test", "admin@shield.test"


@dataclass
class AuditedSession:
    """Performs actions at a backend and collects the secrets that it sends and receives."""

    backend: Backend
    environment: Environment
    box: MailServer
    admin: dict[str, str] = field(default_factory=dict)
    secrets: list[str] = field(default_factory=lambda: [PASSWORD, NEW_PASSWORD, GUESS, CONTENT])

    async def post(
        self, path: str, who: dict[str, str] | None = None, status: int = 200, **body: Any
    ) -> Any:
        return await self.ask("POST", path, who, status, body or None)

    async def ask(
        self,
        method: str,
        path: str,
        who: dict[str, str] | None = None,
        status: int = 200,
        body: Any = None,
    ) -> Any:
        answer = await self.backend.http.request(method, path, headers=who, json=body)
        assert answer.status_code == status, (path, answer.text)
        return _read(answer)

    async def login(self, email: str, password: str = PASSWORD) -> dict[str, str]:
        tokens = await login(self.backend, email, password)
        self.secrets += [tokens["access_token"], tokens["refresh_token"]]
        return bearer(tokens["access_token"])

    async def mailed(self) -> str:
        token = await self.box.token()
        self.secrets.append(token)
        return token

    async def refresh(self, tokens: dict[str, Any], status: int = 200) -> Any:
        self.secrets.append(tokens["refresh_token"])
        body = {"refresh_token": tokens["refresh_token"]}
        return await self.ask("POST", "/auth/refresh", status=status, body=body)

    async def sessions(self) -> None:
        await self.backend.add_user(ALICE, Role.CONTRIBUTOR)
        await self.backend.add_user(ADMIN, Role.ADMIN)
        self.admin = await self.login(ADMIN)
        alice = await self.login(ALICE)
        changed: dict[str, Any] = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
        await self.post("/auth/password/change", alice, 204, **changed)
        await self.post("/auth/logout", alice, 204)
        first = await login(self.backend, ALICE, NEW_PASSWORD)
        second = await self.refresh(first)
        await self.refresh(second)
        await self.refresh(first, 401)
        for _ in range(5):
            await ask_login(self.backend, ALICE, GUESS)
        await self.post(f"/admin/users/{await self.id_of(ALICE)}/unlock", self.admin)

    async def links(self) -> None:
        await self.post("/auth/register", status=202, email=BOB)
        token = await self.mailed()
        await self.post("/auth/verify-email", status=201, token=token, password=PASSWORD)
        await self.post("/auth/password/forgot", status=202, email=BOB)
        token = await self.mailed()
        await self.post("/auth/password/reset", status=204, token=token, password=NEW_PASSWORD)
        await self.post("/admin/users/invite", self.admin, 201, email="carol@shield.test")
        token = await self.mailed()
        await self.post("/auth/register", status=201, invitation=token, password=PASSWORD)
        await self.post("/admin/users/invite", self.admin, 201, email="erin@shield.test")
        await self.mailed()
        (invited,) = (await self.ask("GET", "/admin/users/invitations", self.admin))["items"]
        await self.ask("DELETE", f"/admin/users/invitations/{invited['id']}", self.admin, 204)

    async def second_factor(self) -> None:
        bob = await self.login(BOB, NEW_PASSWORD)
        setup = await self.post("/auth/mfa/setup", bob, password=NEW_PASSWORD)
        code = pyotp.TOTP(setup["secret"]).now()
        codes = await self.post("/auth/mfa/confirm", bob, code=code)
        self.secrets += [setup["secret"], *codes["recovery_codes"]]
        proof = {"password": NEW_PASSWORD, "recovery_code": codes["recovery_codes"][0]}
        await self.post("/auth/mfa/disable", bob, 204, **proof)

    async def administration(self) -> None:
        new = {"email": "dave@shield.test", "password": PASSWORD, "role": "viewer"}
        dave = (await self.post("/admin/users", self.admin, 201, **new))["id"]
        await self.ask("PUT", f"/admin/users/{dave}/role", self.admin, body={"role": "contributor"})
        await self.ask("PUT", f"/admin/users/{dave}/name", self.admin, body={"name": "Dave"})
        await self.post("/admin/workspaces", self.admin, 201, name="red")
        member = f"/admin/workspaces/red/members/{dave}"
        await self.ask("PUT", member, self.admin, body={"role": "viewer"})
        await self.ask("DELETE", member, self.admin, 204)
        await self.ask("DELETE", "/admin/workspaces/red", self.admin, 204)
        await self.ask("GET", "/admin/users", await self.login("dave@shield.test"), 403)
        await self.post(f"/admin/users/{dave}/deactivate", self.admin)
        await self.post(f"/admin/users/{dave}/activate", self.admin)

    async def work(self) -> None:
        alice = await self.login(ALICE, NEW_PASSWORD)
        await self.post("/api/ingest", alice, 202, file_path=f"/{CONTENT}", source_name=CONTENT)
        await self.post("/api/query", alice, query=CONTENT)
        stored = {"text": CONTENT, "metadata": {"about": CONTENT}}
        await self.post("/api/tools/qdrant_store", alice, arguments=stored)
        asked = run_input(CONTENT)
        token = alice["Authorization"].removeprefix("Bearer ")
        assert CONTENT in str(await whole_run(self.backend.http, token, asked))
        await self.ask("DELETE", f"/agent/threads/{asked['threadId']}", alice, 204)
        asked = run_input(f"{CONTENT} {ENDLESS}")
        async with running_agent(self.backend.http, token, asked) as stream:
            await stream.until(lambda it: CONTENT in str(it.events))
            await cancel(self.backend, token, asked)
            await stream.until_ended()

    async def uploads(self) -> None:
        alice = await self.login(ALICE, NEW_PASSWORD)
        uploads = Uploader(self.backend, alice["Authorization"].removeprefix("Bearer "))
        document = pdf(100) + CONTENT.encode()
        path = await uploads.begun(len(document), filename=f"{CONTENT}.pdf")
        assert (await uploads.send(path, 0, document)).status_code == 204
        assert (await uploads.ask("DELETE", path)).status_code == 204

    async def dead_letters(self) -> None:
        for how in ("replay", "discard"):
            (bad,) = await self.environment.publish({b"type": b"", b"data": CONTENT.encode()})

            async def is_there(letter: StreamId = bad) -> bool:
                return letter in await self.environment.dead_letters()

            await until(is_there)
            await self.post(f"/admin/stream/dead-letters/{bad}/{how}", self.admin)

    async def audit_log(self) -> None:
        for path in ("export", "verify"):
            await self.ask("GET", f"/admin/audit/{path}", self.admin)

    async def id_of(self, email: str) -> str:
        ((found,),) = await self.environment.query("SELECT id FROM users WHERE email = $1", email)
        return str(found)


def _read(answer: httpx.Response) -> Any:
    is_json = answer.headers.get("content-type", "").endswith("json")
    return answer.json() if is_json and answer.content else answer.text


async def test_every_action_is_recorded_without_secrets(
    environment: Environment, log: Log, tmp_path: Path
) -> None:
    await log.add_expired(3, days=100)
    with capture_logs() as lines:
        async with mail_server() as box, scripted_gateway(CONTENT) as gateway:
            settings = {
                "LITELLM_URL": gateway,
                "SMTP_URL": f"smtp://127.0.0.1:{box.port}",
                "REGISTRATION": "open",
                "UPLOADS_DIRECTORY": str(tmp_path),
            }
            secrets = await perform_all(environment, box, settings)
    rows = await environment.query("SELECT action, audit_log::text FROM audit_log")
    assert {row[0] for row in rows} == {action.value for action in Action}
    written = [row[1] for row in rows]
    written += [str(line) for line in lines if line["event"] == "audit"]
    assert len(secrets) > 20
    for secret in secrets:
        assert not [text for text in written if secret in text], secret
    assert await log.first_fault() is None


async def expire_runs(backend: Backend, environment: Environment) -> None:
    """Delete runs as if their retention period had passed."""
    await until(lambda: not backend.services.agent.runs)
    past = "now() - interval '100 days'"
    await environment.query(f"UPDATE agent_threads SET updated_at = {past}")  # noqa: S608 - ours
    await environment.query(f"UPDATE agent_runs SET started_at = {past}, ended_at = {past}")  # noqa: S608 - ours
    await backend.services.agent.retention.retain_if_alone()


async def perform_all(
    environment: Environment, box: MailServer, settings: dict[str, Any]
) -> list[str]:
    """Perform all actions; return the secrets."""
    async with running(environment.settings(**settings)) as backend:
        await until(lambda: backend.services.audit.settings_changes.status == "compared")
        session = AuditedSession(backend, environment, box)
        await session.sessions()
        await session.links()
        await session.second_factor()
        await session.administration()
        await session.work()
        await session.uploads()
        await session.dead_letters()
        await session.audit_log()
        await expire_runs(backend, environment)
    async with running(environment.settings(**settings, AGENT_SYSTEM_PROMPT=CONTENT)) as backend:
        await until(lambda: backend.services.audit.settings_changes.status == "compared")
    await run(cli_environment(environment), "audit", "retain")
    return session.secrets
