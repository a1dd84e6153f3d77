"""Runs all parts of the gateway, for developers and script/test; hosts have a unit per part."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

START_SECONDS: Final = 120.0
STOP_SECONDS: Final = 10.0
RESTART_SECONDS: Final = 1.0
_PR_SET_PDEATHSIG: Final = 1


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _answers(url: str) -> bool:
    """Whether the URL responds, with any status."""
    try:
        urllib.request.urlopen(url, timeout=5).close()  # noqa: S310 - our own addresses
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def _terminate_with_parent() -> None:
    """Terminate the child process if the supervisor is killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class Part:
    """A process that is restarted when it exits."""

    def __init__(self, name: str, url: str, arguments: Sequence[str]) -> None:
        self.name = name
        self.url = url
        self._command = [
            sys.executable,
            "-m",
            "tests.shield.gateway",
            name.split(maxsplit=1)[0],
            *arguments,
        ]
        self._process = self._start()
        self._down_since: float | None = None

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            preexec_fn=_terminate_with_parent,  # noqa: PLW1509 - there are no threads here
        )

    @property
    def exit_code(self) -> int | None:
        return self._process.poll()

    def keep_alive(self) -> None:
        """Restart the process after a delay, so that its absence can be observed."""
        if self.exit_code is None:
            self._down_since = None
        elif self._down_since is None:
            self._down_since = time.monotonic()
        elif time.monotonic() > self._down_since + RESTART_SECONDS:
            self._process = self._start()

    def answers(self) -> bool:
        """Whether the part responds. Raises RuntimeError if its process has exited."""
        if self.exit_code is not None:
            raise RuntimeError(f"{self.name} ended with {self.exit_code}")
        return _answers(self.url)

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def wait_for(parts: Sequence[Part]) -> None:
    """Wait until all parts respond. Raises RuntimeError if one does not in time."""
    deadline = time.monotonic() + START_SECONDS
    for part in parts:
        while not part.answers():
            if time.monotonic() > deadline:
                raise RuntimeError(f"{part.name} does not answer at {part.url}")
            time.sleep(0.1)


def supervise(parts: Sequence[Part], variables: Mapping[str, str], env_file: str | None) -> None:
    """Wait until all parts respond, print their addresses and keep them running until a signal."""
    ended = [False]

    def end(_signal: int, _frame: object) -> None:
        ended[0] = True
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    try:
        wait_for(parts)
        _write_variables(variables, env_file)
        while True:
            time.sleep(0.1)
            for part in parts:
                part.keep_alive()
    except KeyboardInterrupt:
        pass
    finally:
        for part in parts:
            part.stop()


def _write_variables(variables: Mapping[str, str], env_file: str | None) -> None:
    lines = "".join(f"export {name}='{value}'\n" for name, value in variables.items())
    sys.stdout.write(lines)
    sys.stdout.flush()
    if env_file is not None:
        # Replace atomically: a reader that waits for the file must not see half of it.
        with open(f"{env_file}.new", "w") as file:  # noqa: PTH123
            file.write(lines)
        os.replace(f"{env_file}.new", env_file)  # noqa: PTH105
