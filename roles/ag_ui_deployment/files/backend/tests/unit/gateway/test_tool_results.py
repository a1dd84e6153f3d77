"""Interpretation of tool responses, and which of their texts callers see."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.services.gateway.errors import (
    GatewayBusyError,
    ToolFailedError,
    ToolRejectedError,
    UpstreamError,
    UpstreamTimeoutError,
)
from src.services.gateway.tool_results import (
    error_of,
    error_text,
    gateway_exception,
    is_defect,
    result_of,
    sanitize,
    validation_faults,
)
from src.utils.errors import FieldFault


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
def test_result_of_a_tool_response(answer: dict[str, object], result: object) -> None:
    assert result_of(answer) == result


@pytest.mark.parametrize(
    ("text", "defect"),
    [
        ("the collection does not exist", False),
        ("unknown job_id: nope", False),
        ("Error in line 3 of the filter", False),
        ("Error calling tool 'qdrant_find': boom", True),
        ("Error calling tool 'qdrant_find'", True),
        ("Error executing tool qdrant_find", True),
        ("Error executing tool qdrant_find: boom", True),
        ("psycopg.OperationalError: connection refused", True),
        ("KeyError('x')", True),
        ("TimeoutError", True),
        ('Traceback (most recent call last):\n  File "x.py"', True),
        ("", True),
    ],
)
def test_messages_of_tools_are_distinguished_from_defects(text: str, *, defect: bool) -> None:
    assert is_defect(text) is defect


@pytest.mark.parametrize(
    ("text", "exception"),
    [
        ("ConnectError: All connection attempts failed", "ConnectError"),
        ("MCPError: SSE stream ended without a response", "MCPError"),
        ("ReadTimeout: ", "ReadTimeout"),
        ("UnauthorizedException: no", "UnauthorizedException"),
        ("ExceptionGroup: unhandled errors in a TaskGroup", "ExceptionGroup"),
        ("Error: the collection does not exist", None),
        ("the collection does not exist", None),
        ("Error calling tool 'x': ConnectError: no", None),
    ],
)
def test_exceptions_of_the_gateway_are_recognised(text: str, exception: str | None) -> None:
    assert gateway_exception(text) == exception


@pytest.mark.parametrize(
    ("text", "kind", "outcome_unknown"),
    [
        ("Upstream request timed out, please retry", UpstreamTimeoutError, True),
        ("Rate limited by upstream API, please retry later", GatewayBusyError, False),
        ("Error executing tool qdrant_store", ToolFailedError, True),
        ("Error calling tool 'qdrant_store': boom", ToolFailedError, True),
        ("the collection does not exist", ToolRejectedError, False),
    ],
)
def test_messages_of_the_framework_map_to_errors(
    text: str, kind: type[UpstreamError], *, outcome_unknown: bool
) -> None:
    error = error_of(text, {})
    assert (type(error), error.outcome_unknown) == (kind, outcome_unknown)


@pytest.mark.parametrize("prefix", ["", "Error executing tool crawl_web: "])
def test_validation_errors_are_rejections(prefix: str) -> None:
    error = error_of(f"{prefix}1 validation error for x\nurl\n  Missing [type=missing]", {})
    assert isinstance(error, ToolRejectedError)
    assert error.faults == (FieldFault("url", "Missing"),)


def test_refused_arguments_are_listed() -> None:
    text = (
        "2 validation errors for call[crawl_web]\n"
        "max_pages\n"
        "  Input should be less than or equal to 5 [type=less_than_equal, input_value='a\nb',"
        " input_type=int]\n"
        "    For further information visit https://errors.pydantic.dev/2.14/v/less_than_equal\n"
        "url\n"
        "  Missing required argument [type=missing_argument, input_value={}, input_type=dict]\n"
    )
    assert FieldFault("max_pages", "Input should be less than or equal to 5") in (
        validation_faults(text)
    )
    assert FieldFault("url", "Missing required argument") in validation_faults(text)
    assert validation_faults("1 validation error for call[x]\nodd") == [
        FieldFault("arguments", "are not valid")
    ]
    assert validation_faults("the collection does not exist") == []


def test_internal_details_are_removed() -> None:
    text = (
        "cannot open /opt/shield/graph.py at postgresql://u:hunter2@db/x on 10.0.0.5:5432\r\n\x1b"
    )
    shown = sanitize(text, {})
    assert shown == "cannot open […] at […] on […]"
    assert sanitize("Bearer abc.def and sk-12345 and password=x", {}) == "[…] and […] and […]"
    assert sanitize("Authorization: Bearer abc", {}) == "[…]"
    assert sanitize("no answer of hx-sqldb-server:5432, nor redis:6379", {}) == (
        "no answer of […], nor […]"
    )


@pytest.mark.parametrize(
    "inside",
    [
        "[fd00::5]:6333",
        "[::1]",
        "C:\\shield\\keys.pem",
        "/etc",
        "/srv/",
        "pwd=hunter2",
        "AWS_SECRET_ACCESS_KEY=abcd",
        "db_password: hunter2",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln",
    ],
)
def test_each_form_of_internal_detail_is_removed(inside: str) -> None:
    assert sanitize(f"stopped at {inside} again", {}) == "stopped at […] again"


@pytest.mark.parametrize(
    "text",
    ["3/4 of the pages and/or links", "the token has expired", "a list [1:2] is not taken", "n/a"],
)
def test_other_texts_are_unchanged(text: str) -> None:
    assert sanitize(text, {}) == text


def test_values_sent_by_the_caller_are_kept() -> None:
    arguments = {"file_path": "/srv/inbox/report.pdf"}
    text = "/srv/inbox/report.pdf: no such file in /srv/hidden/inbox"
    assert sanitize(text, arguments) == "/srv/inbox/report.pdf: no such file in […]"


def test_only_the_start_of_a_text_is_processed() -> None:
    """Processing happens in the event loop, so its time must be bounded."""
    blank = " " * 10_000
    assert sanitize(f"begins{blank}ends", {}) == "begins"
    megabytes = {"content": [{"text": "x" * 8_000_000}]}
    assert len(error_text(megabytes)) < 10_000
    # The search for a scheme starts at each letter, and must stop at the length of a scheme.
    assert sanitize("a" * 100 + "://host", {}).startswith("a" * 60)


@given(st.text(max_size=2000))
def test_any_text_becomes_one_bounded_printable_line(text: str) -> None:
    shown = sanitize(text, {})
    assert len(shown) <= 300
    assert not any(ord(one) < 32 or 127 <= ord(one) < 160 for one in shown)
