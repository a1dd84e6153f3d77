"""Encryption of secrets in the database."""

import base64
from uuid import UUID

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from src.services.auth.errors import DecryptionError

_PURPOSE = b"shield-ag-ui: secrets of second factors"


class SecretBox:
    """Encrypts the secrets of users. The first key encrypts, all keys decrypt."""

    def __init__(self, keys: list[str]) -> None:
        self._fernet = derive_fernet(keys, _PURPOSE)
        self._current = derive_fernet(keys[:1], _PURPOSE)

    def is_current(self, ciphertext: str) -> bool:
        """Whether a secret is encrypted with the first key."""
        try:
            self._current.decrypt(ciphertext)
        except InvalidToken:
            return False
        return True

    def encrypt(self, owner: UUID, secret: str) -> str:
        return self._fernet.encrypt(f"{owner}:{secret}".encode()).decode()

    def decrypt(self, owner: UUID, ciphertext: str) -> str:
        """Decrypt a secret of a user.

        Raises:
            DecryptionError: No key decrypts it, or it was encrypted for another user.
        """
        try:
            owner_id, _, secret = self._fernet.decrypt(ciphertext).decode().partition(":")
        except InvalidToken:
            raise DecryptionError from None
        if owner_id != str(owner):
            raise DecryptionError
        return secret


def derive_fernet(keys: list[str], purpose: bytes) -> MultiFernet:
    """Create a Fernet whose keys are derived from `keys` for a purpose (HKDF).

    The first key encrypts, all keys decrypt.
    """
    return MultiFernet([_fernet(key, purpose) for key in keys])


def _fernet(key: str, purpose: bytes) -> Fernet:
    derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose).derive(key.encode())
    return Fernet(base64.urlsafe_b64encode(derived))
