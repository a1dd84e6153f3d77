"""Whether a tool may be sent to an address: not to what only this network can reach.

A name is looked up once, here; the tool looks it up again. What this protects from, and what not,
is told in docs/security.md.
"""

import asyncio
import ipaddress
import socket
from concurrent.futures import ThreadPoolExecutor

from src.utils.hosts import Address, TargetRefusedError, canonical_host, is_public, parse_url

_RESOLVE_SECONDS = 1.0
# Each is held for as long as a name's servers take, which may be much longer.
_RESOLVERS = 16
_INSIDE_NAMES = ("localhost", "local", "internal", "intranet", "lan", "home.arpa", "localdomain")


class SsrfGuard:
    """Decides on hosts; `allow_private` lets everything pass that is an address at all."""

    def __init__(self, *, allow_private: bool) -> None:
        self._allow_private = allow_private
        self._resolvers = ThreadPoolExecutor(_RESOLVERS, "resolver")

    def close(self) -> None:
        self._resolvers.shutdown(wait=False, cancel_futures=True)

    def check_host(self, host: str) -> str | Address:
        """Without looking the name up. Raises TargetRefusedError."""
        target = canonical_host(host)
        if self._allow_private:
            return target
        if isinstance(target, str):
            if "." not in target or target.endswith(tuple(f".{one}" for one in _INSIDE_NAMES)):
                raise TargetRefusedError("is a name of the inside; name a public host")
        elif not is_public(target):
            raise TargetRefusedError("is an address of the inside; name a public host")
        return target

    async def check_url(self, url: str) -> None:
        """Raises TargetRefusedError."""
        await self.check_domain(parse_url(url).hostname or "")

    async def check_domain(self, host: str) -> None:
        """Raises TargetRefusedError. A name that is not known here passes."""
        target = self.check_host(host)
        if self._allow_private or not isinstance(target, str):
            return
        if not all(is_public(address) for address in await self._addresses_of(target)):
            raise TargetRefusedError("leads to an address of the inside; name a public host")

    async def _addresses_of(self, name: str) -> list[Address]:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_RESOLVE_SECONDS):
                found = await loop.run_in_executor(
                    self._resolvers, socket.getaddrinfo, name, None, 0, socket.SOCK_STREAM
                )
        except TimeoutError:
            # Its servers may be slow for us and quick for the tool, which they tell something else.
            raise TargetRefusedError("cannot be looked up in time; try again") from None
        except (OSError, UnicodeError):
            return []
        return [ipaddress.ip_address(str(one[4][0]).partition("%")[0]) for one in found]
