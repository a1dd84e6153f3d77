"""Encryption of the secrets that the database keeps for us."""

import base64
from uuid import UUID

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from src.services.auth.errors import DecryptionError

_PURPOSE = b"shield-ag-ui: secrets of second factors"


class SecretBox:
    """The first key encrypts, all of them decrypt."""

    def __init__(self, keys: list[str]) -> None:
        self._fernet = fernet_of(keys, _PURPOSE)

    def encrypt(self, owner: UUID, secret: str) -> str:
        return self._fernet.encrypt(f"{owner}:{secret}".encode()).decode()

    def decrypt(self, owner: UUID, sealed: str) -> str:
        """Raises DecryptionError."""
        try:
            whose, _, secret = self._fernet.decrypt(sealed).decode().partition(":")
        except InvalidToken:
            raise DecryptionError from None
        if whose != str(owner):
            raise DecryptionError
        return secret


def fernet_of(keys: list[str], purpose: bytes) -> MultiFernet:
    """Encrypts with a key that is derived from the first one for this purpose; decrypts with all."""
    return MultiFernet([_fernet(key, purpose) for key in keys])


def _fernet(key: str, purpose: bytes) -> Fernet:
    derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose).derive(key.encode())
    return Fernet(base64.urlsafe_b64encode(derived))
