"""Time-based one-time passwords (RFC 6238) and recovery codes. Only this module uses pyotp."""

import base64
import hashlib
import hmac
import re
import secrets
from uuid import UUID

import pyotp

STEP_SECONDS = 30
RECOVERY_CODES = 10
# Accepted clock drift, in TOTP steps.
_TOLERANCE = 1
_ISSUER = "Shield AG-UI"


def new_secret() -> str:
    return pyotp.random_base32()


def otpauth_uri(secret: str, email: str) -> str:
    """The URI for the QR code that an authenticator app scans."""
    return pyotp.TOTP(secret).provisioning_uri(name=email, issuer_name=_ISSUER)


def matching_step(secret: str, code: str, now: float, after: int | None) -> int | None:
    """Verify a code.

    Args:
        secret: The secret in Base32.
        code: The code; whitespace is ignored.
        now: The time in seconds since 1970.
        after: The time step of the last accepted code.

    Returns:
        The time step of the code; None if it is wrong, or its step is not greater than `after`.
    """
    digits = re.sub(r"\s", "", code)
    if not re.fullmatch(r"[0-9]{6}", digits):
        return None
    totp = pyotp.TOTP(secret)
    current = int(now) // STEP_SECONDS
    for step in range(current - _TOLERANCE, current + _TOLERANCE + 1):
        matches = hmac.compare_digest(totp.generate_otp(step), digits)
        if matches and (after is None or step > after):
            return step
    return None


def new_recovery_codes() -> list[str]:
    """Generate codes of 80 random bits each, for which a fast hash suffices."""
    return [
        _with_dashes(base64.b32encode(secrets.token_bytes(10)).decode())
        for _ in range(RECOVERY_CODES)
    ]


def recovery_hash(user_id: UUID, code: str) -> str:
    """Hash a recovery code. Dashes, whitespace and letter case are ignored."""
    normalised = re.sub(r"[\s-]", "", code).upper()
    return hashlib.sha256(f"{user_id}:{normalised}".encode()).hexdigest()


def _with_dashes(code: str) -> str:
    return "-".join(code[start : start + 4] for start in range(0, len(code), 4))
