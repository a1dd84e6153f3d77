"""What an API route does before its handler runs, without the rest of the application."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Annotated, Any
from uuid import UUID, uuid4

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Request
from pydantic import AfterValidator, BaseModel

from src.utils.large_bodies import LargeBodies
from src.web import api_route, problems
from src.web.api_route import ApiRoute
from src.web.dependencies import CurrentUser, identify

USER = SimpleNamespace(user=SimpleNamespace(id=uuid4()))


class Body(BaseModel):
    text: str


# Set by the event loop while the text that waits for it is validated.
LOOP_AT_WORK = threading.Event()


def wait_for_loop(text: str) -> str:
    if not LOOP_AT_WORK.wait(5):
        raise ValueError("the event loop did not get its turn")
    return text


class Watched(BaseModel):
    text: Annotated[str, AfterValidator(wait_for_loop)]


class Limits:
    async def check_global(self) -> None:
        """No limit."""


@asynccontextmanager
async def application(bodies: LargeBodies, started: asyncio.Event) -> AsyncIterator[FastAPI]:
    """An application with a route that takes a large body and never responds."""
    services = SimpleNamespace(
        auth=SimpleNamespace(limits=Limits()),
        large_bodies=bodies,
        settings=SimpleNamespace(BODY_MAX_BYTES=1024 * 1024),
    )

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        yield {"services": services}

    app = FastAPI(lifespan=lifespan)
    problems.install(app)
    router = APIRouter(route_class=ApiRoute)

    @router.post("/slow")
    async def slow(_body: Body, _user: CurrentUser) -> None:
        started.set()
        await asyncio.Event().wait()

    @router.post("/watched")
    async def watched(body: Watched, _user: CurrentUser) -> int:
        return len(body.text)

    app.include_router(router)
    app.dependency_overrides[identify] = lambda: USER
    async with lifespan(app) as state:

        async def with_state(scope: Any, receive: Any, send: Any) -> None:
            scope["state"] = state
            await app(scope, receive, send)

        yield with_state  # type: ignore[misc]  # as a server calls it


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    async def identify_early(_request: Request, _services: object) -> Any:
        return USER

    monkeypatch.setattr(api_route, "identify_early", identify_early)


async def test_event_loop_runs_while_a_large_body_is_validated() -> None:
    LOOP_AT_WORK.clear()
    async with application(LargeBodies(), asyncio.Event()) as app:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            request = asyncio.create_task(http.post("/watched", json={"text": "x" * 100_000}))
            asyncio.get_running_loop().call_later(0.1, LOOP_AT_WORK.set)
            answer = await request
            assert (answer.status_code, answer.json()) == (200, 100_000)
            refused = await http.post("/watched", json={"text": ["x" * 100_000]})
            assert refused.status_code == 422
            assert [error["field"] for error in refused.json()["errors"]] == ["body.text"]


async def test_large_body_keeps_its_slot_until_parsed() -> None:
    bodies, started = LargeBodies(max_slots=1, wait_seconds=0.05), asyncio.Event()
    async with application(bodies, started) as app:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            large = {"text": "x" * 100_000}
            working = asyncio.create_task(http.post("/slow", json=large))
            await started.wait()
            async with bodies.slot(UUID(int=1)):
                answer = await http.post("/slow", json=large)
            assert answer.status_code == 503
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
