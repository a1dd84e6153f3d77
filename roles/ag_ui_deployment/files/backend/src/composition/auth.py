"""Builds logins, sessions and rate limits."""

from dataclasses import dataclass
from typing import Self

from redis.asyncio import Redis

from src.config import Settings
from src.services.audit_logger import AuditLogger
from src.services.auth.access_service import AccessService
from src.services.auth.devices import Devices
from src.services.auth.login_attempts import LoginAttempts
from src.services.auth.password_service import PasswordService
from src.services.auth.rate_limits import RateLimits
from src.services.auth.second_factor_service import SecondFactorService
from src.services.auth.session_service import SessionService
from src.services.auth.stream_registry import StreamRegistry
from src.services.auth.tickets import TicketService
from src.services.auth.tokens import TokenService
from src.services.auth_service import AuthService
from src.utils.database import Database
from src.utils.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Auth:
    service: AuthService
    access: AccessService
    sessions: SessionService
    tickets: TicketService
    passwords: PasswordService
    second_factors: SecondFactorService
    devices: Devices
    limits: RateLimits
    open_streams: StreamRegistry

    @classmethod
    def build(
        cls,
        settings: Settings,
        *,
        database: Database,
        redis: Redis,
        audit: AuditLogger,
        metrics: Metrics,
    ) -> Self:
        tokens = TokenService(settings)
        access = AccessService(database, tokens, settings)
        sessions = SessionService(database, tokens, access, audit, settings)
        attempts = LoginAttempts(database, audit, settings)
        devices = Devices(settings)
        second_factors = SecondFactorService(database, access, attempts, settings)
        return cls(
            service=AuthService(attempts, sessions, second_factors, devices),
            access=access,
            sessions=sessions,
            tickets=TicketService(tokens, redis, settings.REDIS_STREAM_NAME),
            passwords=PasswordService(database, access, attempts, audit, devices),
            second_factors=second_factors,
            devices=devices,
            limits=RateLimits(settings, metrics),
            open_streams=StreamRegistry(),
        )
