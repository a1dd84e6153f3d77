"""Device cookies, which identify browsers that logged in to an account before.

They follow OWASP's "Slow Down Online Guessing Attacks with Device Cookies". A device cookie grants no
access; the failed logins of its browser are only counted separately. Fernet encrypts and authenticates
the cookies.
"""

import hashlib
from dataclasses import dataclass
from datetime import timedelta
from uuid import uuid4

from cryptography.fernet import InvalidToken

from src.config import Settings
from src.services.auth.email_addresses import normalise_email
from src.services.auth.errors import EmailRejectedError
from src.services.auth.secret_box import derive_fernet

LIFETIME = timedelta(days=180)
_PURPOSE = b"shield-ag-ui: device cookies"


@dataclass(frozen=True, slots=True)
class Device:
    """A browser that logged in, with a digest of the account's password hash at that time."""

    id: str
    password_digest: str

    def is_current(self, password_hash: str) -> bool:
        """Whether the stored password hash is still the same. Changing it revokes all devices."""
        return self.password_digest == _digest(password_hash)


class Devices:
    def __init__(self, settings: Settings) -> None:
        self._fernet = derive_fernet(settings.signing_keys, _PURPOSE)

    def issue(self, email: str, password_hash: str, device: Device | None = None) -> str:
        """Issue the cookie for the browser of a login.

        Args:
            email: The normalised address of the account.
            password_hash: The current password hash.
            device: The device of the browser, whose id is kept. None for a new one.
        """
        device_id = uuid4().hex if device is None else device.id
        return self._fernet.encrypt(
            f"{device_id}:{_digest(password_hash)}:{email}".encode()
        ).decode()

    def read(self, cookie: str | None, email: str) -> Device | None:
        """Decrypt a cookie. Returns None if it is forged, expired or for another account."""
        try:
            plaintext = self._fernet.decrypt(
                cookie or "", ttl=int(LIFETIME.total_seconds())
            ).decode()
            device_id, password_digest, owner_email = plaintext.split(":", 2)
            return (
                Device(device_id, password_digest)
                if owner_email == normalise_email(email)
                else None
            )
        except (InvalidToken, EmailRejectedError):
            return None


def _digest(password_hash: str) -> str:
    """A fast hash suffices, since the password hash contains a random salt."""
    return hashlib.sha256(password_hash.encode()).hexdigest()[:32]
