"""A browser's EventSource: reads a stream, and reconnects with the last event id.

A process reads a hundred streams, so most clients extract only the ids, with regular expressions;
`FrameParser`, the parser of the other tests, reads the streams of those with `checked`.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from array import array
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any, Final

from roles.ag_ui_deployment.files.backend.tests.run_checker import (
    FrameParser,
    RunChecker,
    RunViolation,
    check_event,
    job_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

READ_SIZE: Final = 1 << 20
UNAVAILABLE: Final = {"502", "503", "504"}
"""The statuses that a browser may get while the site is unavailable."""
GAP: Final = b'"hx.shield.gap"'
IDS: Final = re.compile(rb"(\n: nothing)?\nid: (\d+)-(\d+)\n(event)?")
"""Matches the ids of records; a frame with neither the comment nor an event is a position."""
RETRY: Final = re.compile(rb"^retry: (\d+)$", re.MULTILINE)
TERMINAL: Final = re.compile(rb"\nevent: (?:RUN_FINISHED|RUN_ERROR)\n")
SEQUENCES: Final = 1 << 20
"""Sequence numbers per millisecond that a position can encode."""
SESSION_START: Final = -1
"""Marks in the positions where a browser returned as a new one."""


def position(stream_id: str) -> int:
    """Convert a stream id to a number with the same order."""
    milliseconds, _, sequence = stream_id.partition("-")
    return int(milliseconds) * SEQUENCES + int(sequence)


def stream_id(number: int) -> str:
    """Convert a position to a stream id."""
    return f"{number // SEQUENCES}-{number % SEQUENCES}"


class BrokenHttpError(OSError):
    """The response violates HTTP."""


class ChunkedBody:
    """Decodes a response body in chunked transfer coding incrementally."""

    def __init__(self) -> None:
        self._rest = b""
        self.ended = False

    def feed(self, data: bytes) -> bytes:
        """Return the content of the chunks that `data` completes."""
        data = self._rest + data
        content, offset = [], 0
        while not self.ended:
            line = data.find(b"\r\n", offset)
            if line < 0:
                break
            size = int(data[offset:line], 16)
            begin, end = line + 2, line + 2 + size
            if len(data) < end + 2:
                break
            if data[end : end + 2] != b"\r\n":
                raise BrokenHttpError(f"chunk of {size} bytes without its end")
            content.append(data[begin:end])
            offset, self.ended = end + 2, size == 0
        self._rest = data[offset:]
        return b"".join(content)


class StreamChecker:
    """Checks one connection: frames, events, and the run of each job."""

    def __init__(self) -> None:
        self._frames = FrameParser()
        self._runs: dict[str, RunChecker] = {}

    def feed(self, content: bytes) -> None:
        """Check content.

        Raises RunViolation at the first thing that the official client would reject.
        """
        for frame in self._frames.feed(content):
            if frame.data is None:
                continue
            event = frame.json()
            job = job_of(event)
            if job is None:
                check_event(event)
            else:
                self._runs.setdefault(job, RunChecker()).feed(event)


@dataclass(frozen=True)
class Server:
    """The server's address and the certificate that browsers trust."""

    address: str
    port: int
    name: str
    certificate: str
    silence: float | None = None
    """Seconds without any byte, also from a connection attempt, after which a client gives up."""

    def tls(self) -> ssl.SSLContext:
        """Return a TLS context that trusts only this certificate."""
        return ssl.create_default_context(cadata=self.certificate)


@dataclass(frozen=True)
class Browser:
    """The settings of an EventSource."""

    name: str
    path: str
    token: str = field(repr=False)
    checked: bool = False
    """Whether all content is checked, not only the ids."""
    ends_with_run: bool = False
    """Whether the stream is that of a single run, which is not reopened after its end."""
    mean_connected: float | None = None
    """Mean time in seconds until it disconnects; None: never."""
    mean_disconnected: float = 0.0
    """Mean time in seconds until it reconnects."""
    starts_new_session: bool = False
    """Whether it returns as a new browser, without the last event id."""


@dataclass
class ClientStats:
    """Statistics of an EventSource."""

    connections: int = 0
    disconnects: int = 0
    """The number of connections that ended unexpectedly."""
    refused: Counter[str] = field(default_factory=Counter)
    """Responses other than a stream, by status; with the body if the site was available."""
    unreachable: int = 0
    gaps: list[str] = field(default_factory=list)
    """The values of the gap notices."""
    violations: list[str] = field(default_factory=list)
    open: bool = False
    finished: bool = False


class EventSource:
    """Connects, reads and reconnects like a browser.

    `positions` are those of the received events over all connections, in order of arrival. ARRIVAL
    marks each return as a new browser.
    """

    def __init__(self, browser: Browser, server: Server, tls: ssl.SSLContext) -> None:
        self.browser = browser
        self.stats = ClientStats()
        self.positions = array("q")
        self._last_id: tuple[int, int] | None = None
        self._server = server
        self._tls = tls
        self._retry = 3.0
        self._random = Random(browser.name)
        self._rest = b""
        self._checker: StreamChecker | None = None

    async def run(self) -> None:
        """Read until the run is over or the task is cancelled."""
        while not self.stats.finished:
            delay = self._retry
            connected = asyncio.timeout(self._jittered(self.browser.mean_connected))
            try:
                async with connected:
                    delay = await self._read_connection()
            except (OSError, EOFError) as error:
                if connected.expired():
                    delay = self._disconnect()
                else:
                    self._record_error(error)
            finally:
                self.stats.open = False
            if not self.stats.finished:
                await asyncio.sleep(delay)

    def _disconnect(self) -> float:
        """Disconnect; return the seconds until the next connection."""
        if self.browser.starts_new_session:
            self._last_id = None
            if self.positions and self.positions[-1] != SESSION_START:
                self.positions.append(SESSION_START)
        return self._jittered(self.browser.mean_disconnected) or 0.0

    def _record_error(self, error: OSError | EOFError) -> None:
        if self.stats.open:
            self.stats.disconnects += 1
        else:
            self.stats.unreachable += 1
        if isinstance(error, BrokenHttpError):
            self._record_violation(str(error))

    def _jittered(self, average: float | None) -> float | None:
        return None if average is None else average * self._random.uniform(0.5, 1.5)

    async def _read_connection(self) -> float:
        """Read one connection; return the seconds to wait before the next one."""
        silence = self._server.silence
        async with asyncio.timeout(silence):
            reader, writer = await asyncio.open_connection(
                self._server.address,
                self._server.port,
                ssl=self._tls,
                server_hostname=self._server.name,
                limit=READ_SIZE,
            )
        try:
            writer.write(self._request())
            async with asyncio.timeout(silence):
                head = await reader.readuntil(b"\r\n\r\n")
            status, headers = _parse_head(head)
            if status != 200:
                refusal = str(status)
                if refusal not in UNAVAILABLE:
                    refusal += f": {await reader.read(READ_SIZE)!r}"
                self.stats.refused[refusal] += 1
                return float(headers.get("retry-after", self._retry))
            self._reset()
            body = ChunkedBody()
            while not body.ended:
                async with asyncio.timeout(silence):
                    data = await reader.read(READ_SIZE)
                if not data:
                    raise EOFError
                self.feed(body.feed(data))
            self.stats.disconnects += not self.stats.finished
        finally:
            writer.transport.abort()
        return self._retry

    def _request(self) -> bytes:
        lines = [
            f"GET {self.browser.path} HTTP/1.1",
            f"Host: {self._server.name}",
            f"Authorization: Bearer {self.browser.token}",
            "Accept: text/event-stream",
            "Cache-Control: no-store",
        ]
        if self._last_id is not None:
            lines.append(f"Last-Event-ID: {_id_text(self._last_id)}")
        return "\r\n".join([*lines, "", ""]).encode()

    def _reset(self) -> None:
        self.stats.connections += 1
        self.stats.open = True
        self._rest = b""
        self._checker = StreamChecker() if self.browser.checked else None

    def feed(self, content: bytes) -> None:
        """Record content. An event counts when its frame is complete, as in a browser."""
        if self._checker is not None:
            try:
                self._checker.feed(content)
            except RunViolation as violation:
                self._record_violation(str(violation))
                self._checker = None
        content = self._rest + content
        end = content.rfind(b"\n\n") + 2
        if end == 1:
            self._rest = content
            return
        self._rest, frames = content[end:], b"\n" + content[:end]
        self._record_ids(frames)
        for milliseconds in RETRY.findall(frames) if b"\nretry: " in frames else ():
            self._retry = int(milliseconds) / 1000
        if GAP in frames:
            self.stats.gaps += [frame.decode() for frame in frames.split(b"\n\n") if GAP in frame]
        if self.browser.ends_with_run and TERMINAL.search(frames):
            self.stats.finished = True

    def _record_ids(self, frames: bytes) -> None:
        for nothing, milliseconds, sequence, event in IDS.findall(frames):
            received = int(milliseconds), int(sequence)
            if self._last_id is not None and received <= self._last_id:
                self._record_violation(f"{_id_text(received)} after {_id_text(self._last_id)}")
            self._last_id = received
            if nothing or event:
                self.positions.append(received[0] * SEQUENCES + received[1])

    def _record_violation(self, rule: str) -> None:
        self.stats.violations.append(f"connection {self.stats.connections}: {rule[:1000]}")

    def summary(self) -> dict[str, Any]:
        """Return the statistics in a form that JSON can represent."""
        newest = next((it for it in reversed(self.positions) if it != SESSION_START), None)
        return {**vars(self.stats), "newest": None if newest is None else stream_id(newest)}


def _id_text(last_id: tuple[int, int]) -> str:
    return "{}-{}".format(*last_id)


def _parse_head(data: bytes) -> tuple[int, Mapping[str, str]]:
    """Parse a response head into status and headers (names in lower case)."""
    first, *lines = data.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines if line)
    return int(first.split()[1]), {name.lower(): value.strip() for name, _, value in pairs}
