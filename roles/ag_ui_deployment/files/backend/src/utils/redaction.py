"""Blanks accounts, passwords and tokens inside texts, in time that is linear in their length."""

import re

REDACTED = "[redacted]"

_SECRET_NAME = re.compile(r"passw|pwd|secret|token|ticket|key|auth|sig|credential", re.IGNORECASE)
# Possessive: a name or a value is read once, also where what follows it does not fit.
_PARAMETER = re.compile(r"[?&;#]([\w.-]*+)=")
_VALUE = re.compile(r"[^\s&;#\"'<>]+")
_BEARER = re.compile(r"(?i)(bearer\s++)[\w.~+/=-]+")
_AUTHORITY = re.compile(r"[^\s/?#]*+")
_PASSWORD = re.compile(r"[^\s\"'<>]*+")


def redact_text(text: str) -> str:
    """Blank in URLs whatever may be an account or a secret, and bearer tokens."""
    if "://" in text:
        text = _redact_credentials(text)
    if "=" in text:
        text = _redact_parameters(text)
    return _BEARER.sub(rf"\1{REDACTED}", text)


def _redact_credentials(text: str) -> str:
    """Blank what stands between :// and @.

    That is everything up to the last @ of the authority. Where a password holds what has to be
    encoded, as a slash, the authority seems to end before it: then it is everything up to the last
    @ before a space or a quote.
    """
    parts: list[str] = []
    done = 0
    # Where the last text that may be a password ends, and its last @: other starts share them.
    end, last_at = 0, -1
    start = text.find("://") + 3
    while start >= len("://"):
        authority = _AUTHORITY.match(text, start)
        assert authority is not None  # noqa: S101 - it matches the empty text too
        at = text.rfind("@", start, authority.end())
        colon = text.find(":", start, authority.end())
        if at < 0 <= colon:
            if colon >= end:
                password = _PASSWORD.match(text, colon)
                assert password is not None  # noqa: S101 - it matches the empty text too
                end = password.end()
                last_at = text.rfind("@", colon, end)
            at = last_at if last_at > colon else -1
        if at >= 0:
            parts += (text[done:start], REDACTED)
            done = start = at
        start = text.find("://", start) + 3
    return "".join((*parts, text[done:]))


def _redact_parameters(text: str) -> str:
    """Blank the values of parameters that are named like a secret."""
    parts: list[str] = []
    done = position = 0
    while parameter := _PARAMETER.search(text, position):
        position = parameter.end()
        value = _VALUE.match(text, position)
        if value is not None and _SECRET_NAME.search(parameter[1]):
            parts += (text[done:position], REDACTED)
            done = position = value.end()
    return "".join((*parts, text[done:]))
