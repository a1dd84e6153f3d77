"""Access tokens: signed JWTs. The only module with python-jose."""

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
    """The token is forged, expired or made for something else."""


@dataclass(frozen=True, slots=True)
class AccessToken:
    """What a verified token says; `expires_at` is in seconds since 1970."""

    user: User
    expires_at: float


class Tokens:
    def __init__(self, settings: Settings) -> None:
        self._key = settings.JWT_SECRET.get_secret_value()
        self._algorithm = settings.JWT_ALGORITHM
        self.lifetime = settings.ACCESS_TOKEN_EXPIRE_MINUTES * 60

    def issue(self, user: User) -> str:
        now = int(time.time())
        claims = {
            "iss": _ISSUER,
            "aud": _AUDIENCE,
            "sub": str(user.id),
            "jti": uuid4().hex,
            "iat": now,
            "exp": now + self.lifetime,
            "typ": _PURPOSE,
            "email": user.email,
            "role": user.role.value,
        }
        return jwt.encode(claims, self._key, algorithm=self._algorithm)

    def verify(self, token: str) -> AccessToken:
        """Raises InvalidTokenError."""
        try:
            claims = jwt.decode(
                token,
                self._key,
                algorithms=[self._algorithm],
                audience=_AUDIENCE,
                issuer=_ISSUER,
                options=_REQUIRED,
            )
            if claims.get("typ") != _PURPOSE:
                raise InvalidTokenError
            user = User(id=UUID(claims["sub"]), email=claims["email"], role=Role(claims["role"]))
            return AccessToken(user=user, expires_at=float(claims["exp"]))
        except (JWTError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise InvalidTokenError from error
