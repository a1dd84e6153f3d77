"""The host with LiteLLM and Shield's simulated tools, orchestrator and model.

Stops, kills and queries its parts.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import httpx

from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.scenarios.support.site import Machine

Part = Literal["proxy", "tools", "orchestrator", "model"]

# As set in molecule/shared/gateway.yml.
PORTS: Final[dict[Part, int]] = {"proxy": 4000, "orchestrator": 8000, "tools": 8001, "model": 8002}
WITHDRAWN: Final = "/run/shield-proxy/keys-withdrawn"
LIMITED: Final = "/run/shield-proxy/keys-limited"
REQUESTS_PER_MINUTE: Final = 2
"""Rate limit of a limited key (tests/shield/gateway/keys.py)."""
START_LIMIT: Final = 90.0
"""Seconds for LiteLLM to start while the site is busy."""


@dataclass(frozen=True)
class Gateway:
    """Controls the parts of the gateway; each is a systemd unit."""

    machine: Machine

    @staticmethod
    def unit(part: Part) -> str:
        return f"shield@{part}.service"

    def _url(self, part: Part, path: str) -> str:
        return f"http://{self.machine.address}:{PORTS[part]}{path}"

    def answers(self, part: Part) -> bool:
        """Whether the part responds, with any status."""
        try:
            httpx.get(self._url(part, "/health/liveliness"), timeout=5)
        except httpx.TransportError:
            return False
        return True

    def wait_until_up(self) -> None:
        """Wait until all parts respond."""
        for part in PORTS:
            eventually(
                lambda part=part: self.answers(part),  # type: ignore[misc]
                f"{part} answers",
                within=START_LIMIT,
            )

    def calls(self, part: Part, containing: str) -> list[dict[str, Any]]:
        """Return the recorded calls that contain this text."""
        answer = httpx.get(self._url(part, "/calls"), params={"contains": containing}, timeout=10)
        calls: list[dict[str, Any]] = answer.raise_for_status().json()
        return calls

    @contextmanager
    def without(self, part: Part) -> Iterator[None]:
        """Kill the part, and start it at the end of the block."""
        self.kill(part)
        try:
            yield
        finally:
            self.machine.systemctl("start", self.unit(part))
            self.wait_until_up()

    def kill(self, part: Part) -> None:
        """Kill the part with all its calls and keep it down."""
        self.machine.systemctl("kill", "--signal=KILL", self.unit(part))
        self.machine.systemctl("stop", self.unit(part))

    @contextmanager
    def without_keys(self) -> Iterator[None]:
        """Make the gateway refuse all keys, including the backend's."""
        with self._file(WITHDRAWN):
            yield

    @contextmanager
    def with_limited_keys(self) -> Iterator[None]:
        """Limit each key to few requests a minute, including the backend's."""
        with self._file(LIMITED):
            yield

    @contextmanager
    def _file(self, path: str) -> Iterator[None]:
        self.machine.run("touch", path)
        try:
            yield
        finally:
            self.machine.run("rm", path)
