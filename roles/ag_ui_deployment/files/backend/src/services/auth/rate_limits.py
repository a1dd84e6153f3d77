"""Rate limits, counted in Redis for all instances, or locally while Redis is down.

Besides the settings, only this module uses the library `limits`.
"""

import asyncio
import hmac
import math
import time
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from uuid import UUID

import structlog
from limits import RateLimitItem, parse_many
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from src.config import Settings
from src.services.auth.devices import Device
from src.services.auth.email_addresses import mailbox_key, normalise_email
from src.services.auth.errors import EmailRejectedError, LimitReachedError
from src.utils.metrics import Metrics
from src.utils.networks import network_of
from src.utils.redis import REDIS_ERRORS, limits_connections

logger = structlog.get_logger(__name__)

# After an error of Redis, count locally for this many seconds instead of waiting for it each time.
_LOCAL_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Quota:
    """The state of one limit of a caller. `window` and `reset_in` are in seconds."""

    policy: str
    amount: int
    window: int
    remaining: int
    reset_in: int


# The quotas of the current request.
_quotas: ContextVar[list[Quota] | None] = ContextVar("quotas", default=None)


def collect_quotas() -> list[Quota]:
    """Return a list that collects the quotas of all limits checked in this context from now on."""
    quotas: list[Quota] = []
    _quotas.set(quotas)
    return quotas


class RateLimits:
    """Each check counts one request, and raises LimitReachedError if it exceeds a limit."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._metrics = metrics
        self._connections = limits_connections(settings)
        redis = RedisStorage(
            f"async+{settings.REDIS_URL.get_secret_value()}",
            implementation="redispy",
            key_prefix=f"{settings.REDIS_STREAM_NAME}:limits",
            connection_pool=self._connections,  # type: ignore[arg-type]  # annotated too narrowly
        )
        self._shared = SlidingWindowCounterRateLimiter(redis)
        self._local = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._local_until = 0.0
        secret = settings.JWT_SECRET.get_secret_value().encode()
        self._key = hmac.digest(secret, b"names of accounts in limits", "sha256")
        self._login_per_address = _shortest_first(settings.RATE_LOGIN_PER_ADDRESS)
        self._mail_per_mailbox = _shortest_first(settings.RATE_MAIL_PER_MAILBOX)
        self._api = _shortest_first(settings.RATE_API_PER_USER)
        self._streams = _shortest_first(settings.RATE_STREAMS_PER_USER)
        self._global = _shortest_first(settings.RATE_GLOBAL)

    async def check_login(self, address: str | None, email: str, device: Device | None) -> None:
        """Count a login: by address, or by account for devices that logged in to it before.

        A known device is thus not limited by others at its address. Devices are counted together per
        account, because anybody who can log in can create many of them. Those with an earlier password
        are counted separately, so that revoked devices do not use up the limit of the current ones.

        Args:
            address: The client address.
            email: The email address in the request.
            device: The device cookie, if it is valid for this account.
        """
        if device is not None:
            name = self._digest(f"{_normalised(email)}:{device.password_digest}")
            await self._count(self._login_per_address, "login_device", name)
        else:
            await self.check_address(address)

    async def check_mail(self, address: str | None, email: str) -> None:
        """Count a request that sends an email: by address and by mailbox."""
        await self.check_address(address)
        mailbox = self._digest(mailbox_key(_normalised(email)))
        await self._count(self._mail_per_mailbox, "mail_mailbox", mailbox, report=False)

    async def check_address(self, address: str | None) -> None:
        """Count a request that could be used to guess secrets, by address."""
        await self._count(self._login_per_address, "login_address", network_of(address))

    async def check_user(self, user_id: UUID) -> None:
        await self._count(self._api, "api", str(user_id))

    async def check_tool_call(self, user_id: UUID) -> None:
        """Count a tool call of the agent for its user, without reporting the quota."""
        await self._count(self._api, "api", str(user_id), report=False)

    async def check_stream(self, user_id: UUID) -> None:
        await self._count(self._streams, "stream", str(user_id))

    async def check_global(self) -> None:
        """Count against the limit for all requests together."""
        await self._count(self._global, "global", "all", report=False)

    async def _count(
        self, limits: Sequence[RateLimitItem], kind: str, key: str, *, report: bool = True
    ) -> None:
        """Count with each limit. `report` is whether the quota is reported to the caller."""
        quotas = _quotas.get() if report else None
        if time.monotonic() >= self._local_until:
            try:
                await self._count_with(self._shared, limits, kind, key, quotas)
            except REDIS_ERRORS as error:
                self._local_until = time.monotonic() + _LOCAL_SECONDS
                logger.warning("limits_local", error=str(error))
            else:
                return
        await self._count_with(self._local, limits, kind, key, quotas)

    async def _count_with(
        self,
        counter: SlidingWindowCounterRateLimiter,
        limits: Sequence[RateLimitItem],
        kind: str,
        key: str,
        quotas: list[Quota] | None,
    ) -> None:
        reached = None
        for limit in limits:
            if not await counter.hit(limit, kind, key):
                reached = limit
                break
        if quotas is not None:
            quotas += await asyncio.gather(*(_quota(counter, limit, kind, key) for limit in limits))
        if reached is not None:
            self._metrics.limited.labels(kind).inc()
            raise LimitReachedError((await _quota(counter, reached, kind, key)).reset_in)

    async def close(self) -> None:
        await self._connections.aclose()

    def _digest(self, name: str) -> str:
        """A keyed digest for keys in Redis, since the typed address may be a password."""
        return hmac.digest(self._key, name.encode(), "sha256").hex()[:32]


def _normalised(email: str) -> str:
    try:
        return normalise_email(email)
    except EmailRejectedError:
        return email


def _shortest_first(setting: str) -> Sequence[RateLimitItem]:
    """Parse a setting. The shortest limit is checked first: what it rejects the others do not count."""
    return sorted(parse_many(setting), key=lambda limit: limit.get_expiry())


async def _quota(
    counter: SlidingWindowCounterRateLimiter, limit: RateLimitItem, kind: str, key: str
) -> Quota:
    stats = await counter.get_window_stats(limit, kind, key)
    multiples = limit.multiples if limit.multiples > 1 else ""
    return Quota(
        policy=f"{kind}-{multiples}{limit.GRANULARITY.name}",
        amount=limit.amount,
        window=limit.get_expiry(),
        remaining=stats.remaining,
        reset_in=max(1, math.ceil(stats.reset_time - time.time())),
    )
