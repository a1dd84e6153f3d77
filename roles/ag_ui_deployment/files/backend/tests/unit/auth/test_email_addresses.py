"""Validation and normalisation of email addresses."""

import pytest

from src.services.auth import email_addresses
from src.services.auth.email_addresses import normalise_email
from src.services.auth.errors import EmailRejectedError


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        (" Alice@Shield.TEST ", "alice@shield.test"),
        ("alice@BÜCHER.test", "alice@xn--bcher-kva.test"),
        ("a=b?c@shield.test", "a=b?c@shield.test"),
    ],
)
def test_address_is_normalised(text: str, stored: str) -> None:
    assert normalise_email(text) == stored


@pytest.mark.parametrize("text", ["=?utf-8?q?alice?=@shield.test", "=?@shield.test", "a=?@x.test"])
def test_encoded_words_are_refused(text: str) -> None:
    with pytest.raises(EmailRejectedError, match=r"may not have =\? before the @"):
        normalise_email(text)


def test_overlong_address_is_refused_before_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(email_addresses, "validate_email")
    for text in ("\x01" * 1_000_000 + "@shield.test", "a" * 309 + "@shield.test"):
        with pytest.raises(EmailRejectedError, match="may have at most 320 characters"):
            normalise_email(text)


@pytest.mark.parametrize("text", ["alice@example.org", " Alice@Example.ORG ", "ALICE@example.org"])
def test_case_and_spaces_are_normalised(text: str) -> None:
    assert normalise_email(text) == "alice@example.org"


@pytest.mark.parametrize(
    "text", ["admin@shield.test", "ops@hx.local", "a@b.internal", "root@localhost"]
)
def test_private_domains_are_accepted(text: str) -> None:
    assert normalise_email(text) == text


@pytest.mark.parametrize(
    "text", ["", "alice", "@example.org", "alice@", "a b@example.org", "a\0@example.org"]
)
def test_malformed_address_is_refused(text: str) -> None:
    with pytest.raises(EmailRejectedError):
        normalise_email(text)
