"""Runs the whole application behind a real socket, in the event loop of the test."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import UUID, uuid5

import httpx
import uvicorn

from src.composition.services import Services
from src.config import Settings
from src.main import create_app
from src.models.permissions import Role
from src.models.session import SessionRow
from src.models.user import User, UserRow
from src.models.workspace import MembershipRow, WorkspaceRow
from src.routers.console import BUILT
from src.services.auth.passwords import hash_password
from src.services.auth.revocation_watcher import RevocationWatcher
from src.services.auth.tokens import TokenService
from src.utils.tls import client_context
from src.web.http_protocol import HttpProtocol
from tests.support.environment import Environment
from tests.support.waiting import until

PASSWORD = "correct horse battery staple"


@dataclass
class Backend:
    """A running instance."""

    settings: Settings
    services: Services
    http: httpx.AsyncClient

    @property
    def revocation_watcher(self) -> RevocationWatcher:
        task = self.services.tasks["access"]
        assert isinstance(task, RevocationWatcher)
        return task

    async def add_user(self, email: str, role: Role = Role.VIEWER) -> User:
        """Add an account with a session for its tokens."""
        row = UserRow(
            email=email,
            password_hash=await _hash_of_password(),
            role=role.value,
            memberships=[],
        )
        now = datetime.now(UTC)
        async with self.services.database.transaction() as session:
            session.add(row)
            await session.flush()
            user = User.model_validate(row)
            session.add(
                SessionRow(
                    id=_session_of(user),
                    user_id=user.id,
                    series_hash=str(user.id),
                    refresh_hash="",
                    created_at=now,
                    last_used_at=now,
                    expires_at=now + timedelta(hours=8),
                )
            )
        return user

    async def join(self, user: User, workspace: str, role: Role = Role.VIEWER) -> None:
        """Make the user a member of a workspace, which is created if necessary."""
        async with self.services.database.transaction() as session:
            await session.merge(WorkspaceRow(name=workspace))
            await session.flush()
            await session.merge(MembershipRow(user_id=user.id, workspace=workspace, role=role))

    def token_of(self, user: User, **settings: Any) -> str:
        """Return an access token; `settings` override those that it is issued with."""
        tokens = TokenService(self.settings.model_copy(update=settings))
        return tokens.issue(user, _session_of(user))

    async def health(self) -> dict[str, Any]:
        """Return the report of /health."""
        body: dict[str, Any] = (await self.http.get("/health")).json()
        return body


# The hash of PASSWORD. All accounts of the tests have the same, because hashing takes most of the time of `add_user`.
_hashes: list[str] = []


async def _hash_of_password() -> str:
    if not _hashes:
        _hashes.append(await hash_password(PASSWORD))
    return _hashes[0]


def _session_of(user: User) -> UUID:
    return uuid5(user.id, "session")


@asynccontextmanager
async def running(
    settings: Settings, *, healthy: bool = True, console_directory: Path = BUILT
) -> AsyncIterator[Backend]:
    """Start an instance on a free port; by default wait until it reads the stream."""
    services = Services.build(settings)
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    with patch.object(Services, "build", return_value=services):
        app = create_app(settings, console_directory)
        config = uvicorn.Config(
            app,
            http=HttpProtocol,
            log_config=None,
            access_log=False,
            proxy_headers=False,
            timeout_graceful_shutdown=settings.SHUTDOWN_GRACE_SECONDS,
        )
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        await until(lambda: server.started or serving.done())
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}",
        limits=limits,
        timeout=httpx.Timeout(20),
        verify=client_context(),
    ) as http:
        backend = Backend(settings, services, http)
        try:
            if healthy:
                await until(lambda: services.consumer.task.status == "consuming")
                await until(lambda: services.events.tailer.status == "following")
            yield backend
        finally:
            services.drain()
            server.should_exit = True
            await serving


@asynccontextmanager
async def two_instances(
    environment: Environment, **values: Any
) -> AsyncIterator[tuple[Backend, Backend]]:
    """Start two instances with these settings that share Redis and PostgreSQL."""
    settings = environment.settings(**values)
    other = environment.settings(**values, REDIS_CONSUMER_NAME="host-8003")
    async with running(settings) as one, running(other) as two:
        yield one, two
