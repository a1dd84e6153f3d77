"""Secrets are redacted, everything else is kept, and both are fast."""

import re

import pytest

from src.utils import redaction
from src.utils.redaction import redact_text


@pytest.mark.parametrize(
    "text",
    [
        "http://gateway:4000/v1?model=m&n=1",
        "alice@shield.test logged in at https://shield.test/",
        "GET http://gateway:4000/v1 and http://other/ by alice@shield.test",
        '{"url": "http://gateway:4000", "email": "alice@shield.test"}',
    ],
)
def test_texts_without_secrets_are_unchanged(text: str) -> None:
    assert redact_text(text) == text


def test_url_keeps_all_but_its_secrets() -> None:
    text = "at redis://:a@b@h:6379/0, http://gateway/v1?api_key=k&n=1 and http://t@h/x?a=b@c"
    blanked = "at redis://[redacted]@h:6379/0, http://gateway/v1?api_key=[redacted]&n=1 and "
    assert redact_text(text) == blanked + "http://[redacted]@h/x?a=b@c"


class Steps:
    """Counts the characters that are read."""

    count = 0


class CountedText(str):
    __slots__ = ()

    def find(self, sub: str, start: int = 0, end: int | None = None) -> int:  # type: ignore[override]  # the call under test
        found = super().find(sub, start, end)
        Steps.count += (found if found >= 0 else len(self) if end is None else end) - start
        return found

    def rfind(self, sub: str, start: int = 0, end: int | None = None) -> int:  # type: ignore[override]  # the call under test
        found = super().rfind(sub, start, end)
        Steps.count += (len(self) if end is None else end) - max(start, found)
        return found


class CountedPattern:
    """A stub for a pattern that reads each character of a match once."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self._pattern = pattern

    def match(self, text: str, start: int) -> re.Match[str] | None:
        found = self._pattern.match(text, start)
        Steps.count += found.end() - start if found else 1
        return found

    def search(self, text: str, start: int) -> re.Match[str] | None:
        found = self._pattern.search(text, start)
        Steps.count += (found.end() if found else len(text)) - start
        return found


@pytest.mark.parametrize(
    "unit",
    [
        "://",
        "://a:",
        "://@",
        "://a:b@",
        "?key",
        "?key=",
        "&a",
        "key",
        "/x",
        "a:",
        "bearer ",
        "=://:",
    ],
)
@pytest.mark.parametrize("end", ["", "@", " ", '"', "="])
def test_number_of_reads_is_linear(unit: str, end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_AUTHORITY", "_PASSWORD", "_PARAMETER", "_VALUE"):
        monkeypatch.setattr(redaction, name, CountedPattern(getattr(redaction, name)))
    Steps.count = 0
    text = CountedText(unit * 2000 + end)
    redact_text(text)
    assert Steps.count <= 8 * len(text)
