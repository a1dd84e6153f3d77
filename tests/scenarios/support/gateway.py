"""The host with LiteLLM and, behind it, Shield's tools, orchestrator and model: taken down and asked."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import httpx

from tests.scenarios.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.scenarios.support.site import Machine

Part = Literal["proxy", "tools", "orchestrator", "model"]

# As molecule/shared/gateway.yml has them.
PORTS: Final[dict[Part, int]] = {"proxy": 4000, "orchestrator": 8000, "tools": 8001, "model": 8002}
WITHDRAWN: Final = "/run/shield-proxy/keys-withdrawn"
START_LIMIT: Final = 90.0
"""Seconds that LiteLLM may take until it answers, beside a site that is at work."""


@dataclass(frozen=True)
class Gateway:
    """Each part is a unit of the machine."""

    machine: Machine

    @staticmethod
    def unit(part: Part) -> str:
        return f"shield@{part}.service"

    def _url(self, part: Part, path: str) -> str:
        return f"http://{self.machine.address}:{PORTS[part]}{path}"

    def answers(self, part: Part) -> bool:
        """Whether somebody answers there, whatever it is."""
        try:
            httpx.get(self._url(part, "/health/liveliness"), timeout=5)
        except httpx.TransportError:
            return False
        return True

    def wait_until_up(self) -> None:
        for part in PORTS:
            eventually(
                lambda part=part: self.answers(part),  # type: ignore[misc]
                f"{part} answers",
                within=START_LIMIT,
            )

    def calls(self, part: Part, containing: str) -> list[dict[str, Any]]:
        """What arrived at the tools or the model with this text in it."""
        answer = httpx.get(self._url(part, "/calls"), params={"contains": containing}, timeout=10)
        calls: list[dict[str, Any]] = answer.raise_for_status().json()
        return calls

    @contextmanager
    def without(self, part: Part) -> Iterator[None]:
        """The part has died, and is back at the end."""
        self.kill(part)
        try:
            yield
        finally:
            self.machine.systemctl("start", self.unit(part))
            self.wait_until_up()

    def kill(self, part: Part) -> None:
        """Let it die at once, calls and all, and stay away."""
        self.machine.systemctl("kill", "--signal=KILL", self.unit(part))
        self.machine.systemctl("stop", self.unit(part))

    @contextmanager
    def without_keys(self) -> Iterator[None]:
        """The gateway takes nobody's key, the backend's neither."""
        self.machine.run("touch", WITHDRAWN)
        try:
            yield
        finally:
            self.machine.run("rm", WITHDRAWN)
