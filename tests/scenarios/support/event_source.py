"""A browser's EventSource: reads a stream, and reconnects with the last event id."""

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

READ_MAX: Final = 1 << 20
GAP: Final = b'"hx.shield.gap"'
IDS: Final = re.compile(rb"(\n: nothing)?\nid: (\d+)-(\d+)\n(event)?")
"""Matches the ids of records; a frame with neither the comment nor an event is a position."""
RETRY: Final = re.compile(rb"^retry: (\d+)$", re.MULTILINE)
TERMINAL: Final = re.compile(rb"\nevent: (?:RUN_FINISHED|RUN_ERROR)\n")
SEQUENCES: Final = 1 << 20
"""Sequence numbers per millisecond that a position can encode."""
ARRIVAL: Final = -1
"""Marks in the positions where a browser returned as a new one."""


def position(stream_id: str) -> int:
    """Convert a stream id to a number with the same order."""
    milliseconds, _, sequence = stream_id.partition("-")
    return int(milliseconds) * SEQUENCES + int(sequence)


def stream_id(place: int) -> str:
    """Convert a position to a stream id."""
    return f"{place // SEQUENCES}-{place % SEQUENCES}"


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
        content, at = [], 0
        while not self.ended:
            line = data.find(b"\r\n", at)
            if line < 0:
                break
            size = int(data[at:line], 16)
            begin, end = line + 2, line + 2 + size
            if len(data) < end + 2:
                break
            if data[end : end + 2] != b"\r\n":
                raise BrokenHttpError(f"chunk of {size} bytes without its end")
            content.append(data[begin:end])
            at, self.ended = end + 2, size == 0
        self._rest = data[at:]
        return b"".join(content)


class Judge:
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

    def tls(self) -> ssl.SSLContext:
        """Return a TLS context that trusts only this certificate."""
        return ssl.create_default_context(cadata=self.certificate)


@dataclass(frozen=True)
class Browser:
    """The settings of an EventSource."""

    name: str
    path: str
    token: str = field(repr=False)
    judged: bool = False
    """Whether all content is checked, not only the ids."""
    ends: bool = False
    """Whether the stream is that of a single run, which is not reopened after its end."""
    stays: float | None = None
    """Mean time in seconds until it disconnects; None: never."""
    away: float = 0.0
    """Mean time in seconds until it reconnects."""
    forgets: bool = False
    """Whether it returns as a new browser, without the last event id."""


@dataclass
class Notes:
    """Statistics of an EventSource."""

    connections: int = 0
    breaks: int = 0
    """The number of connections that ended unexpectedly."""
    refused: Counter[str] = field(default_factory=Counter)
    """Responses other than a stream, by status."""
    unreachable: int = 0
    gaps: list[str] = field(default_factory=list)
    """The values of the gap notices."""
    violations: list[str] = field(default_factory=list)
    open: bool = False
    over: bool = False


class EventSource:
    """Connects, reads and reconnects like a browser.

    `positions` are those of the received events over all connections, in order of arrival. ARRIVAL
    marks each return as a new browser.
    """

    def __init__(self, browser: Browser, server: Server, tls: ssl.SSLContext) -> None:
        self.browser = browser
        self.notes = Notes()
        self.positions = array("q")
        self._last_id: tuple[int, int] | None = None
        self._server = server
        self._tls = tls
        self._retry = 3.0
        self._chance = Random(browser.name)
        self._rest = b""
        self._judge: Judge | None = None

    async def run(self) -> None:
        """Read until the run is over or the task is cancelled."""
        while not self.notes.over:
            pause = self._retry
            stay = asyncio.timeout(self._some(self.browser.stays))
            try:
                async with stay:
                    pause = await self._listen()
            except (OSError, EOFError) as error:
                if stay.expired():
                    pause = self._leave()
                else:
                    self._broken(error)
            finally:
                self.notes.open = False
            if not self.notes.over:
                await asyncio.sleep(pause)

    def _leave(self) -> float:
        """Disconnect; return the seconds until the next connection."""
        if self.browser.forgets:
            self._last_id = None
            if self.positions and self.positions[-1] != ARRIVAL:
                self.positions.append(ARRIVAL)
        return self._some(self.browser.away) or 0.0

    def _broken(self, error: OSError | EOFError) -> None:
        if self.notes.open:
            self.notes.breaks += 1
        else:
            self.notes.unreachable += 1
        if isinstance(error, BrokenHttpError):
            self._violated(str(error))

    def _some(self, average: float | None) -> float | None:
        return None if average is None else average * self._chance.uniform(0.5, 1.5)

    async def _listen(self) -> float:
        """Read one connection; return the seconds to wait before the next one."""
        reader, writer = await asyncio.open_connection(
            self._server.address,
            self._server.port,
            ssl=self._tls,
            server_hostname=self._server.name,
            limit=READ_MAX,
        )
        try:
            writer.write(self._request())
            status, headers = _head(await reader.readuntil(b"\r\n\r\n"))
            if status != 200:
                self.notes.refused[str(status)] += 1
                return float(headers.get("retry-after", self._retry))
            self._begin()
            body = ChunkedBody()
            while not body.ended:
                data = await reader.read(READ_MAX)
                if not data:
                    raise EOFError
                self.take(body.feed(data))
            self.notes.breaks += not self.notes.over
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
            lines.append(f"Last-Event-ID: {_text(self._last_id)}")
        return "\r\n".join([*lines, "", ""]).encode()

    def _begin(self) -> None:
        self.notes.connections += 1
        self.notes.open = True
        self._rest = b""
        self._judge = Judge() if self.browser.judged else None

    def take(self, content: bytes) -> None:
        """Record content. An event counts when its frame is complete, as in a browser."""
        if self._judge is not None:
            try:
                self._judge.feed(content)
            except RunViolation as violation:
                self._violated(str(violation))
                self._judge = None
        content = self._rest + content
        whole = content.rfind(b"\n\n") + 2
        if whole == 1:
            self._rest = content
            return
        self._rest, frames = content[whole:], b"\n" + content[:whole]
        self._note_ids(frames)
        for found in RETRY.findall(frames) if b"\nretry: " in frames else ():
            self._retry = int(found) / 1000
        if GAP in frames:
            self.notes.gaps += [frame.decode() for frame in frames.split(b"\n\n") if GAP in frame]
        if self.browser.ends and TERMINAL.search(frames):
            self.notes.over = True

    def _note_ids(self, frames: bytes) -> None:
        for nothing, milliseconds, sequence, event in IDS.findall(frames):
            found = int(milliseconds), int(sequence)
            if self._last_id is not None and found <= self._last_id:
                self._violated(f"{_text(found)} after {_text(self._last_id)}")
            self._last_id = found
            if nothing or event:
                self.positions.append(found[0] * SEQUENCES + found[1])

    def _violated(self, rule: str) -> None:
        self.notes.violations.append(f"connection {self.notes.connections}: {rule[:1000]}")

    def summary(self) -> dict[str, Any]:
        """Return the statistics in a form that JSON can represent."""
        newest = next((it for it in reversed(self.positions) if it != ARRIVAL), None)
        return {**vars(self.notes), "newest": None if newest is None else stream_id(newest)}


def _text(last_id: tuple[int, int]) -> str:
    return "{}-{}".format(*last_id)


def _head(data: bytes) -> tuple[int, Mapping[str, str]]:
    """Parse a response head into status and headers (names in lower case)."""
    first, *lines = data.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines if line)
    return int(first.split()[1]), {name.lower(): value.strip() for name, _, value in pairs}
