"""Redacts credentials and tokens in texts, in linear time."""

import re

REDACTED = "[redacted]"

_SECRET_NAME = re.compile(r"passw|pwd|secret|token|ticket|key|auth|sig|credential", re.IGNORECASE)
# Possessive quantifiers prevent backtracking, so the time stays linear.
_PARAMETER = re.compile(r"[?&;#]([\w.-]*+)=")
_VALUE = re.compile(r"[^\s&;#\"'<>]+")
_BEARER = re.compile(r"(?i)(bearer\s++)[\w.~+/=-]+")
_AUTHORITY = re.compile(r"[^\s/?#]*+")
_PASSWORD = re.compile(r"[^\s\"'<>]*+")


def redact_text(text: str) -> str:
    """Redact credentials and secret parameters in URLs, and bearer tokens."""
    if "://" in text:
        text = _redact_credentials(text)
    if "=" in text:
        text = _redact_parameters(text)
    return _BEARER.sub(rf"\1{REDACTED}", text)


def _redact_credentials(text: str) -> str:
    """Redact the user information between :// and @.

    It normally ends at the last @ of the authority. If a password contains a character that should
    have been encoded, such as a slash, the authority seems to end before it. Then the user information
    extends to the last @ before a space or a quote.
    """
    parts: list[str] = []
    done = 0
    # End and last @ of the latest possible password, cached so that it is not scanned again for
    # another start in it.
    end, last_at = 0, -1
    start = text.find("://") + 3
    while start >= len("://"):
        authority = _AUTHORITY.match(text, start)
        assert authority is not None  # noqa: S101 - matches an empty text
        at = text.rfind("@", start, authority.end())
        colon = text.find(":", start, authority.end())
        if at < 0 <= colon:
            if colon >= end:
                password = _PASSWORD.match(text, colon)
                assert password is not None  # noqa: S101 - matches an empty text
                end = password.end()
                last_at = text.rfind("@", colon, end)
            at = last_at if last_at > colon else -1
        if at >= 0:
            parts += (text[done:start], REDACTED)
            done = start = at
        start = text.find("://", start) + 3
    return "".join((*parts, text[done:]))


def _redact_parameters(text: str) -> str:
    """Redact the values of parameters whose names suggest a secret."""
    parts: list[str] = []
    done = position = 0
    while parameter := _PARAMETER.search(text, position):
        position = parameter.end()
        value = _VALUE.match(text, position)
        if value is not None and _SECRET_NAME.search(parameter[1]):
            parts += (text[done:position], REDACTED)
            done = position = value.end()
    return "".join((*parts, text[done:]))
