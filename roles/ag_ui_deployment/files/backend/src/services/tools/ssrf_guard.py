"""Prevents server-side request forgery: tools must not fetch hosts of the internal network.

A name is resolved here and again by the tool. docs/security.md describes what this protects against and
what not.
"""

import asyncio
import ipaddress
import socket
from concurrent.futures import ThreadPoolExecutor

from src.utils.hosts import Address, TargetRefusedError, canonical_host, is_public, parse_url

_RESOLVE_SECONDS = 1.0
# Threads for lookups. One may be occupied for much longer than the timeout above.
_RESOLVER_THREADS = 16
_INTERNAL_SUFFIXES = (
    "localhost",
    "local",
    "internal",
    "intranet",
    "lan",
    "home.arpa",
    "localdomain",
)


class SsrfGuard:
    """Checks hosts. `allow_private` admits all valid ones."""

    def __init__(self, *, allow_private: bool) -> None:
        self._allow_private = allow_private
        self._resolver_threads = ThreadPoolExecutor(_RESOLVER_THREADS, "resolver")

    def close(self) -> None:
        self._resolver_threads.shutdown(wait=False, cancel_futures=True)

    def check_host(self, host: str) -> str | Address:
        """Check a host without resolving it, and return its canonical form.

        Raises:
            TargetRefusedError: It is invalid or internal.
        """
        target = canonical_host(host)
        if self._allow_private:
            return target
        if isinstance(target, str):
            if "." not in target or target.endswith(
                tuple(f".{suffix}" for suffix in _INTERNAL_SUFFIXES)
            ):
                raise TargetRefusedError("is a name of the inside; name a public host")
        elif not is_public(target):
            raise TargetRefusedError("is an address of the inside; name a public host")
        return target

    async def check_url(self, url: str) -> None:
        """Check the host of a URL, as check_domain does.

        Raises:
            TargetRefusedError: The URL is invalid, or its host is internal.
        """
        await self.check_domain(parse_url(url).hostname or "")

    async def check_domain(self, host: str) -> None:
        """Check a host and the addresses that it resolves to. A name that does not resolve passes.

        Raises:
            TargetRefusedError: It is invalid or internal, or its lookup timed out.
        """
        target = self.check_host(host)
        if self._allow_private or not isinstance(target, str):
            return
        if not all(is_public(address) for address in await self._addresses_of(target)):
            raise TargetRefusedError("leads to an address of the inside; name a public host")

    async def _addresses_of(self, name: str) -> list[Address]:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_RESOLVE_SECONDS):
                results = await loop.run_in_executor(
                    self._resolver_threads, socket.getaddrinfo, name, None, 0, socket.SOCK_STREAM
                )
        except TimeoutError:
            # Its name servers may delay this lookup on purpose, and give the tool another address.
            raise TargetRefusedError("cannot be looked up in time; try again") from None
        except (OSError, UnicodeError):
            return []
        return [ipaddress.ip_address(str(result[4][0]).partition("%")[0]) for result in results]
