"""Access tokens: signed JWTs. The only module with python-jose."""

import hashlib
import hmac
import time
from dataclasses import dataclass
from uuid import UUID, uuid4

from jose import JWTError, jwt

from src.config import Settings
from src.models.role import Role
from src.models.user import User

_ISSUER = "shield-ag-ui-backend"
_AUDIENCE = "shield-ag-ui"
_PURPOSE = "access"
_REQUIRED = {f"require_{claim}": True for claim in ("exp", "iat", "sub", "jti", "aud", "iss")}


class InvalidTokenError(Exception):
    """The token is forged, expired, made for something else, or its session has ended."""


@dataclass(frozen=True, slots=True)
class AccessToken:
    """What a verified token says; `expires_at` is in seconds since 1970.

    `looked_at` is when the account was looked at, by the monotonic clock.
    """

    user: User
    session_id: UUID
    expires_at: float
    looked_at: float = 0.0


class Tokens:
    """Only the first key signs; tokens of the others are good until they expire."""

    def __init__(self, settings: Settings) -> None:
        keys = [settings.JWT_SECRET.get_secret_value(), *settings.previous_jwt_secrets]
        self._keys = {key_id(key): key for key in reversed(keys)}
        self._key_id = key_id(keys[0])
        self._algorithm = settings.JWT_ALGORITHM
        self.lifetime = settings.ACCESS_TOKEN_EXPIRE_MINUTES * 60

    def issue(self, user: User, session_id: UUID, *, until: float | None = None) -> str:
        """A token of the session, which does not outlast it: `until` is when that ends."""
        now = int(time.time())
        expires = now + self.lifetime
        claims = {
            "iss": _ISSUER,
            "aud": _AUDIENCE,
            "sub": str(user.id),
            "sid": str(session_id),
            "jti": uuid4().hex,
            "iat": now,
            "exp": expires if until is None else min(expires, int(until)),
            "typ": _PURPOSE,
            "email": user.email,
            "role": user.role.value,
        }
        key = self._keys[self._key_id]
        return jwt.encode(claims, key, algorithm=self._algorithm, headers={"kid": self._key_id})

    def verify(self, token: str) -> AccessToken:
        """Raises InvalidTokenError."""
        try:
            claims = jwt.decode(
                token,
                self._keys[jwt.get_unverified_header(token)["kid"]],
                algorithms=[self._algorithm],
                audience=_AUDIENCE,
                issuer=_ISSUER,
                options=_REQUIRED,
            )
            if claims.get("typ") != _PURPOSE:
                raise InvalidTokenError
            user = User(id=UUID(claims["sub"]), email=claims["email"], role=Role(claims["role"]))
            return AccessToken(user, UUID(claims["sid"]), float(claims["exp"]))
        except (JWTError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise InvalidTokenError from error


def key_id(key: str) -> str:
    """A name for a key, which does not tell it."""
    return hmac.digest(key.encode(), b"key id", hashlib.sha256).hex()[:16]
