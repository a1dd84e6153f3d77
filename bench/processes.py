"""Servers as child processes: start, stop and resource usage."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

_TICKS = os.sysconf("SC_CLK_TCK")
_STOP_SECONDS = 20.0
_POLL_SECONDS = 0.02


class BenchError(Exception):
    """The measurement cannot continue; the message says why."""


class Memory(NamedTuple):
    """Memory in KiB. `pss` is the proportional set size; None if it cannot be read."""

    rss: int
    pss: int | None


class User(NamedTuple):
    uid: int
    gid: int


@dataclass(frozen=True)
class Setting:
    """User, environment and working directory of a program; None keeps those of this process."""

    user: User | None = None
    env: Mapping[str, str] | None = None
    cwd: Path | None = None

    def arguments(self) -> dict[str, Any]:
        """Return the keyword arguments of subprocess functions."""
        as_user = {}
        if self.user:
            as_user = {"user": self.user.uid, "group": self.user.gid, "extra_groups": []}
        return {"env": self.env, "cwd": self.cwd, **as_user}


@dataclass(frozen=True)
class Process:
    """A running server with its log file."""

    name: str
    child: subprocess.Popen[bytes]
    log: Path

    def cpu_seconds(self) -> float:
        """Return the CPU seconds of the process and its descendants, including exited ones."""
        return sum(_cpu_ticks(pid) for pid in _tree(self.child.pid)) / _TICKS

    def memory(self) -> Memory:
        pids = list(_tree(self.child.pid))
        shares = [_proportional(pid) for pid in pids]
        return Memory(
            sum(_kib(Path(f"/proc/{pid}/status"), "VmRSS:") or 0 for pid in pids),
            None if None in shares else sum(share or 0 for share in shares),
        )

    def check(self) -> None:
        """Raise BenchError with the end of the log if the process has exited."""
        if self.child.poll() is not None:
            tail = self.log.read_text(errors="replace")[-2000:]
            raise BenchError(f"{self.name} ended with {self.child.returncode}:\n{tail}")

    def stop(self) -> None:
        self.child.terminate()
        try:
            self.child.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
        # Kill remaining children of the process group.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGKILL)


@contextlib.contextmanager
def running(
    name: str, command: Sequence[str], log: Path, setting: Setting | None = None
) -> Iterator[Process]:
    """Run a server for the duration of the block; its output goes to the log."""
    with log.open("ab") as output:
        child = subprocess.Popen(  # noqa: S603 - programs of the project and the distribution
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            # Ctrl-C reaches only this process, which stops the servers in order.
            start_new_session=True,
            **(setting or Setting()).arguments(),
        )
    process = Process(name, child, log)
    try:
        yield process
    finally:
        process.stop()


def run(command: Sequence[str], setting: Setting | None = None, text: str = "") -> str:
    """Run a program and return its output. Raises BenchError with its errors if it fails."""
    done: subprocess.CompletedProcess[str] = subprocess.run(  # noqa: S603 - see running()
        command,
        input=text,
        capture_output=True,
        text=True,
        check=False,
        **(setting or Setting()).arguments(),
    )
    if done.returncode:
        name = Path(command[0]).name
        raise BenchError(f"{name} failed with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def wait_for(what: str, condition: Callable[[], bool], seconds: float, process: Process) -> None:
    """Wait until the condition holds. Raises BenchError if that takes too long."""
    deadline = time.monotonic() + seconds
    while not condition():
        process.check()
        if time.monotonic() > deadline:
            raise BenchError(f"{what}: not within {seconds:g} s; see {process.log}")
        time.sleep(_POLL_SECONDS)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _tree(pid: int) -> Iterator[int]:
    """Yield the process id and those of its descendants."""
    yield pid
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from _tree(int(child))


def _cpu_ticks(pid: int) -> int:
    """Return the CPU ticks of a process and its reaped children (proc(5), fields 14 to 17)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    after_name = stat.rpartition(")")[2].split()
    return sum(map(int, after_name[11:15]))


def _proportional(pid: int) -> int | None:
    try:
        return _kib(Path(f"/proc/{pid}/smaps_rollup"), "Pss:")
    except OSError:
        return None


def _kib(path: Path, key: str) -> int | None:
    for line in path.read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1])
    return None
