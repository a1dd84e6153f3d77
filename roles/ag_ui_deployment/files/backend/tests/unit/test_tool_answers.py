"""What the answers of tools mean, and what callers get to see of their texts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.services.tool_answers import is_defect, presentable, refused_arguments, result_of
from src.services.upstream_errors import ArgumentError


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        ({"structuredContent": {"a": 1}, "content": []}, {"a": 1}),
        ({"structuredContent": {"result": [1]}}, [1]),
        ({"structuredContent": {"result": 1, "more": 2}}, {"result": 1, "more": 2}),
        ({"structuredContent": None, "content": [{"text": '{"a": 1}'}]}, {"a": 1}),
        ({"content": [{"type": "image"}, {"text": "an answer"}]}, "an answer"),
        ({"content": []}, ""),
        ({"content": "odd"}, ""),
    ],
)
def test_the_result_of_a_tool(answer: dict[str, object], result: object) -> None:
    assert result_of(answer) == result


@pytest.mark.parametrize(
    ("text", "defect"),
    [
        ("the collection does not exist", False),
        ("unknown job_id: nope", False),
        ("Error in line 3 of the filter", False),
        ("Error calling tool 'qdrant_find': boom", True),
        ("psycopg.OperationalError: connection refused", True),
        ("KeyError('x')", True),
        ("TimeoutError", True),
        ('Traceback (most recent call last):\n  File "x.py"', True),
        ("", True),
    ],
)
def test_a_tools_word_for_its_caller_is_told_from_a_defect(text: str, *, defect: bool) -> None:
    assert is_defect(text) is defect


def test_refused_arguments_are_named() -> None:
    text = (
        "2 validation errors for call[crawl_web]\n"
        "max_pages\n"
        "  Input should be less than or equal to 5 [type=less_than_equal, input_value='a\nb',"
        " input_type=int]\n"
        "    For further information visit https://errors.pydantic.dev/2.14/v/less_than_equal\n"
        "url\n"
        "  Missing required argument [type=missing_argument, input_value={}, input_type=dict]\n"
    )
    assert ArgumentError("max_pages", "Input should be less than or equal to 5") in (
        refused_arguments(text)
    )
    assert ArgumentError("url", "Missing required argument") in refused_arguments(text)
    assert refused_arguments("1 validation error for call[x]\nodd") == [
        ArgumentError("arguments", "are not valid")
    ]
    assert refused_arguments("the collection does not exist") == []


def test_what_tells_of_the_inside_is_cut() -> None:
    text = (
        "cannot open /opt/shield/graph.py at postgresql://u:hunter2@db/x on 10.0.0.5:5432\r\n\x1b"
    )
    shown = presentable(text, {})
    assert shown == "cannot open […] at […] on […]"
    assert presentable("Bearer abc.def and sk-12345 and password=x", {}) == "[…] and […] and […]"


def test_what_the_caller_sent_is_not() -> None:
    arguments = {"file_path": "/srv/inbox/report.pdf"}
    text = "/srv/inbox/report.pdf: no such file in /srv/hidden/inbox"
    assert presentable(text, arguments) == "/srv/inbox/report.pdf: no such file in […]"


@given(st.text(max_size=2000))
def test_any_text_becomes_one_bounded_printable_line(text: str) -> None:
    shown = presentable(text, {})
    assert len(shown) <= 300
    assert not any(ord(one) < 32 or 127 <= ord(one) < 160 for one in shown)
