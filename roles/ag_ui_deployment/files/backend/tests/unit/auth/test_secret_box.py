"""Encryption of the secrets of users, and rotation of its keys."""

from uuid import uuid4

import pytest
from cryptography.fernet import Fernet

from src.services.auth.errors import DecryptionError
from src.services.auth.secret_box import SecretBox
from tests.support.builders import settings_of

SECRET = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"


def test_decryption_needs_the_owner_and_the_key() -> None:
    owner, other = uuid4(), uuid4()
    box = SecretBox(["k" * 32])
    sealed = box.encrypt(owner, SECRET)
    assert SECRET not in sealed
    assert box.decrypt(owner, sealed) == SECRET
    foreign = Fernet(Fernet.generate_key()).encrypt(b"x").decode()
    for opener, whose, text in (
        (box, other, sealed),
        (SecretBox(["l" * 32]), owner, sealed),
        (box, owner, sealed[:-2]),
        (box, owner, foreign),
        (box, owner, ""),
    ):
        with pytest.raises(DecryptionError):
            opener.decrypt(whose, text)


def test_keys_can_be_rotated() -> None:
    owner = uuid4()
    before = settings_of(JWT_SECRET="j" * 40)
    sealed = SecretBox(before.mfa_keys).encrypt(owner, SECRET)
    own = {"JWT_SECRET": "j" * 40, "MFA_KEY": "m" * 40}
    assert SecretBox(settings_of(**own).mfa_keys).decrypt(owner, sealed) == SECRET
    sealed = SecretBox(settings_of(**own).mfa_keys).encrypt(owner, SECRET)
    newer = {"JWT_SECRET": "i" * 40, "MFA_KEY": "n" * 40, "MFA_PREVIOUS_KEYS": "m" * 40}
    assert SecretBox(settings_of(**newer).mfa_keys).decrypt(owner, sealed) == SECRET
    with pytest.raises(DecryptionError):
        SecretBox(settings_of(JWT_SECRET="i" * 40).mfa_keys).decrypt(owner, sealed)


def test_only_what_the_first_key_encrypted_is_current() -> None:
    old, new = SecretBox(["m" * 40]), SecretBox(["n" * 40, "m" * 40])
    assert new.is_current(new.encrypt(uuid4(), SECRET))
    assert not new.is_current(old.encrypt(uuid4(), SECRET))


def test_without_own_key_the_signing_key_encrypts() -> None:
    """The previous keys only decrypt."""
    owner = uuid4()
    unset = settings_of(JWT_SECRET="j" * 40, MFA_PREVIOUS_KEYS="m" * 40)
    sealed = SecretBox(unset.mfa_keys).encrypt(owner, SECRET)
    assert SecretBox(["j" * 40]).decrypt(owner, sealed) == SECRET
