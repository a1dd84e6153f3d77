"""Which representation a client prefers."""

import pytest

from src.utils.content_negotiation import prefers, quality

CHROMIUM = (
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,"
    "application/signed-exchange;v=b3;q=0.7"
)


@pytest.mark.parametrize(
    ("accept", "weight"),
    [
        ("", 1),
        ("*/*", 1),
        ("text/html", 1),
        ("TEXT/HTML ; Q=0.5", 0.5),
        ("text/html;charset=utf-8;q=0.25", 0.25),
        ("application/json", 0),
        ("text/htmlx, html, text", 0),
        # The most specific range decides, in any order.
        ("*/*;q=0.9, text/*;q=0.5, text/html;q=0.1", 0.1),
        ("text/html;q=0, */*", 0),
        ("text/*;q=0.3, */*", 0.3),
        # An invalid weight is ignored.
        ("text/html;q=2", 1),
        ("text/html;q=-1", 1),
        ("text/html;q=high", 1),
        (",;,=;q=0,", 0),
    ],
)
def test_quality_of_html(accept: str, weight: float) -> None:
    assert quality(accept, "text/html") == weight


@pytest.mark.parametrize(
    ("accept", "preferred"),
    [
        (CHROMIUM, True),
        ("text/html", True),
        ("application/json;q=0.9, text/*", True),
        ("*/*", False),
        ("", False),
        ("application/json", False),
        ("text/html, application/json", False),
        ("text/html;q=0.9, application/json", False),
        ("text/html;q=0.9, */*", False),
        ("text/event-stream", False),
    ],
)
def test_preference_for_html(accept: str, *, preferred: bool) -> None:
    assert prefers(accept, "text/html", "application/json") is preferred
