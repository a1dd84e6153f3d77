"""Device cookies: how a browser shows that it has logged in to an account before.

They follow OWASP's "Slow Down Online Guessing Attacks with Device Cookies": one opens nothing, it
only has failures counted apart from those of others. Fernet encrypts and authenticates them.
"""

import hashlib
from dataclasses import dataclass
from datetime import timedelta
from uuid import uuid4

from cryptography.fernet import InvalidToken

from src.config import Settings
from src.services.auth.email_addresses import normalise_email
from src.services.auth.errors import EmailRejectedError
from src.services.auth.secret_box import fernet_of

LIFETIME = timedelta(days=180)
_PURPOSE = b"shield-ag-ui: device cookies"


@dataclass(frozen=True, slots=True)
class Device:
    """A browser that has logged in; `password` is a digest of the password's hash at that time."""

    id: str
    password: str

    def is_current(self, password_hash: str) -> bool:
        """False where the password has been set anew since: that revokes all devices."""
        return self.password == _digest(password_hash)


class Devices:
    def __init__(self, settings: Settings) -> None:
        self._fernet = fernet_of(settings.signing_keys, _PURPOSE)

    def issue(self, email: str, password_hash: str, device: Device | None = None) -> str:
        """A cookie for the browser of a login, which stays the same device if it was one."""
        device_id = uuid4().hex if device is None else device.id
        return self._fernet.encrypt(
            f"{device_id}:{_digest(password_hash)}:{email}".encode()
        ).decode()

    def read(self, cookie: str | None, email: str) -> Device | None:
        """None for a cookie that is forged, expired or of another account."""
        try:
            plain = self._fernet.decrypt(cookie or "", ttl=int(LIFETIME.total_seconds())).decode()
            device_id, password, owner = plain.split(":", 2)
            return Device(device_id, password) if owner == normalise_email(email) else None
        except (InvalidToken, EmailRejectedError):
            return None


def _digest(password_hash: str) -> str:
    """The hash of a hash that has a random salt: nobody can guess what it was made of."""
    return hashlib.sha256(password_hash.encode()).hexdigest()[:32]
