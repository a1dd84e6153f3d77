"""One-time passwords and recovery codes."""

import base64
from uuid import uuid4

import pyotp
import pytest

from src.services.auth.totp import matching_step, new_recovery_codes, otpauth_uri, recovery_hash

# From RFC 6238, appendix B, with the last six of the eight digits.
RFC_SECRET = base64.b32encode(b"12345678901234567890").decode()
RFC_CODES = {59: "287082", 1111111109: "081804", 1234567890: "005924", 20000000000: "353130"}


class TestCodes:
    @pytest.mark.parametrize(("at", "code"), RFC_CODES.items())
    def test_rfc_6238_test_vectors(self, at: int, code: str) -> None:
        assert matching_step(RFC_SECRET, code, at, None) == at // 30

    def test_clock_drift_of_one_step_is_accepted(self) -> None:
        code = pyotp.TOTP(RFC_SECRET).generate_otp(1000)
        steps = [matching_step(RFC_SECRET, code, step * 30 + 1, None) for step in range(997, 1004)]
        assert steps == [None, None, 1000, 1000, 1000, None, None]

    def test_code_is_accepted_only_once(self) -> None:
        code = pyotp.TOTP(RFC_SECRET).generate_otp(1000)
        assert matching_step(RFC_SECRET, code, 30_000, 999) == 1000
        assert matching_step(RFC_SECRET, code, 30_000, 1000) is None
        assert matching_step(RFC_SECRET, code, 30_000, 1001) is None

    @pytest.mark.parametrize(
        "code",
        ["", "28708", "2870820", "28708\u0662", "\u0662\u0668\u0667\u0660\u0668\u0662", "x" * 6],
    )
    def test_malformed_code_is_refused(self, code: str) -> None:
        assert matching_step(RFC_SECRET, code, 59, None) is None

    def test_spaces_in_a_code_are_ignored(self) -> None:
        assert matching_step(RFC_SECRET, "287 082", 59, None) == 1

    def test_otpauth_uri(self) -> None:
        uri = otpauth_uri(RFC_SECRET, "a b&c@shield.test")
        parsed = pyotp.parse_uri(uri)
        assert isinstance(parsed, pyotp.TOTP)
        assert (parsed.secret, parsed.name) == (RFC_SECRET, "a b&c@shield.test")


def test_recovery_codes_are_unique_and_accepted_in_any_notation() -> None:
    codes = new_recovery_codes()
    assert len(set(codes + new_recovery_codes())) == 20
    owner = uuid4()
    one = codes[0]
    assert len(one.replace("-", "")) == 16
    same = {recovery_hash(owner, text) for text in (one, one.lower(), one.replace("-", " "))}
    assert len(same) == 1
    assert recovery_hash(uuid4(), one) not in same
