"""Access tokens and tickets: signed JWTs. Only this module uses python-jose."""

import hashlib
import hmac
import time
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID, uuid4

from jose import JWTError, jwt

from src.config import Settings
from src.models.permissions import Role
from src.models.user import User
from src.services.auth.errors import NotAuthenticatedError

_ISSUER = "shield-ag-ui-backend"
_AUDIENCE = "shield-ag-ui"
_ACCESS = "access"
_TICKET = "ticket"
TICKET_SECONDS = 60
_REQUIRED = {f"require_{claim}": True for claim in ("exp", "iat", "sub", "jti", "aud", "iss")}


@dataclass(frozen=True, slots=True)
class AccessToken:
    """The claims of a verified token.

    `expires_at` is in seconds since 1970. `read_at` is the time of the monotonic clock at which the
    account was last read.
    """

    user: User
    session_id: UUID
    expires_at: float
    read_at: float = 0.0


class TokenService:
    """Issues and verifies tokens. JWT_SECRET signs; JWT_PREVIOUS_SECRETS only verify."""

    def __init__(self, settings: Settings) -> None:
        keys = settings.signing_keys
        self._keys = {key_id(key): key for key in reversed(keys)}
        self._key_id = key_id(keys[0])
        self._algorithm = settings.JWT_ALGORITHM
        self.lifetime = settings.ACCESS_TOKEN_EXPIRE_MINUTES * 60

    def issue(self, user: User, session_id: UUID, *, session_end: float | None = None) -> str:
        """Issue an access token.

        Args:
            user: The user.
            session_id: The session.
            session_end: The end of the session in seconds since 1970, which the token does not outlast.
        """
        expires_at = time.time() + self.lifetime
        expires_at = expires_at if session_end is None else min(expires_at, session_end)
        return self._sign(user, session_id, {"typ": _ACCESS, "exp": int(expires_at)})

    def issue_ticket(self, access: AccessToken) -> str:
        """Issue a ticket to open one stream, which may last as long as the access token."""
        expires_at = int(time.time()) + TICKET_SECONDS
        claims = {"typ": _TICKET, "exp": expires_at, "until": access.expires_at}
        return self._sign(access.user, access.session_id, claims)

    def _sign(self, user: User, session_id: UUID, type_claims: dict[str, Any]) -> str:
        claims = {
            "iss": _ISSUER,
            "aud": _AUDIENCE,
            "sub": str(user.id),
            "sid": str(session_id),
            "jti": uuid4().hex,
            "iat": int(time.time()),
            "email": user.email,
            "role": user.role.value,
        }
        key, headers = self._keys[self._key_id], {"kid": self._key_id}
        return jwt.encode(claims | type_claims, key, algorithm=self._algorithm, headers=headers)

    def verify(self, token: str) -> AccessToken:
        """Verify an access token.

        Raises:
            NotAuthenticatedError: It is forged, expired, or no access token.
        """
        access, _ = self._verify(token, _ACCESS)
        return access

    def verify_ticket(self, ticket: str) -> tuple[AccessToken, str]:
        """Verify a ticket, and return its access and its id.

        Raises:
            NotAuthenticatedError: It is forged, expired, or no ticket.
        """
        access, claims = self._verify(ticket, _TICKET)
        return replace(access, expires_at=float(claims["until"])), str(claims["jti"])

    def _verify(self, token: str, token_type: str) -> tuple[AccessToken, dict[str, Any]]:
        try:
            claims = jwt.decode(
                token,
                self._keys[jwt.get_unverified_header(token)["kid"]],
                algorithms=[self._algorithm],
                audience=_AUDIENCE,
                issuer=_ISSUER,
                options=_REQUIRED,
            )
            if claims.get("typ") != token_type:
                raise NotAuthenticatedError
            user = User(id=UUID(claims["sub"]), email=claims["email"], role=Role(claims["role"]))
            return AccessToken(user, UUID(claims["sid"]), float(claims["exp"])), claims
        except (JWTError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise NotAuthenticatedError from error


def key_id(key: str) -> str:
    """An id that does not reveal the key."""
    return hmac.digest(key.encode(), b"key id", hashlib.sha256).hex()[:16]
