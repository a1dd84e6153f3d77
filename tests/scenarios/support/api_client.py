"""An API client for one user: queries, jobs and agent runs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from roles.ag_ui_deployment.files.backend.tests.run_checker import check_run
from tests.scenarios.support.http import EventStream, read_to_end, request

if TYPE_CHECKING:
    from roles.ag_ui_deployment.files.backend.tests.run_checker import Run
    from tests.scenarios.support.http import Answer, Route
    from tests.scenarios.support.site import Account, Site

QUESTION: Final = "Which host runs the vector database?"


@dataclass(frozen=True)
class ApiClient:
    """Sends one user's requests through the proxy."""

    site: Site
    account: Account

    def get(self, path: str) -> Answer:
        return request(self.site.proxy, "GET", path, token=self.account.token)

    def post(self, path: str, *, route: Route | None = None, **body: Any) -> Answer:
        """POST the keyword arguments as a JSON object; the default route is the proxy."""
        return request(
            route or self.site.proxy,
            "POST",
            path,
            token=self.account.token,
            body=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )

    def ask(self, question: str = QUESTION, route: Route | None = None) -> Answer:
        """Ask the knowledge graph a question (/api/query)."""
        return self.post("/api/query", route=route, query=question)

    def run_agent(self, prompt: str) -> tuple[Run, list[dict[str, Any]]]:
        """Run the agent to its end; return the checked run and its events."""
        return self.follow(self.site.proxy, "/agent", run_input(prompt))

    def follow(
        self, route: Route, path: str, body: bytes | None = None
    ) -> tuple[Run, list[dict[str, Any]]]:
        """Read a run's stream to its end; return the checked run and its events."""
        with EventStream(route, path, self.account.token, body=body) as stream:
            read_to_end(stream, within=60)
            return check_run(stream.events, complete=True), stream.events


def run_input(prompt: str) -> bytes:
    """Return the request body that starts a run in a new conversation."""
    document = {
        "protocolVersion": "1.0",
        "threadId": f"thread-{uuid4()}",
        "runId": f"run-{uuid4()}",
        "state": {},
        "messages": [{"id": str(uuid4()), "role": "user", "content": prompt}],
        "tools": [],
        "context": [],
        "forwardedProps": {},
    }
    return json.dumps(document).encode()


def text_of(events: list[dict[str, Any]]) -> str:
    """Return the concatenated text of all messages."""
    return "".join(it["delta"] for it in events if it["type"] == "TEXT_MESSAGE_CONTENT")


def failure_of(events: list[dict[str, Any]]) -> str:
    """Return the error code of a failed run."""
    assert events[-1]["type"] == "RUN_ERROR", events[-1]
    return str(events[-1]["code"])
