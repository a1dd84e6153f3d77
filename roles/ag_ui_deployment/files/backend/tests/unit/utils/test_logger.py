"""Every log line is one JSON object without secrets."""

import logging
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from io import StringIO
from typing import Any

import orjson
import pytest
import structlog
from structlog.testing import capture_logs

from src.models.audit import CheckpointPurpose, Entry
from src.services.audit.chain import START
from src.services.audit.journal import JOURNAL, write_checkpoint, write_entry
from src.services.audit.keys import AuditKeys, Checkpoint
from src.utils.logger import configure_logging

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def lines(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lines]:
    """Configure logging at a level; yield a function that returns the lines since its last call."""
    root = logging.getLogger()
    before = root.handlers, root.level
    configured = structlog.get_config()
    out = StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    configure_logging(getattr(request, "param", "INFO"), always=[JOURNAL])

    def written() -> list[dict[str, Any]]:
        text = out.getvalue()
        out.seek(0)
        out.truncate()
        return [orjson.loads(line) for line in text.splitlines()]

    yield written
    root.handlers, root.level = before
    structlog.configure(**configured)
    structlog.contextvars.clear_contextvars()


def failing(message: str) -> None:
    raise RuntimeError(message)


def test_line_of_structlog(lines: Lines) -> None:
    structlog.contextvars.bind_contextvars(request_id="r-1")
    structlog.get_logger("src.test").warning("dead_letter", stream_id="1-0", count=2)
    (line,) = lines()
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "dead_letter",
        "level": "warning",
        "logger": "src.test",
        "request_id": "r-1",
        "stream_id": "1-0",
        "count": 2,
    }


@pytest.mark.usefixtures("lines")
def test_used_logger_follows_a_later_configuration() -> None:
    """Otherwise it would bypass the capture of other tests in the same process."""
    logger = structlog.get_logger("src.test")
    logger.info("before")
    configure_logging("INFO", stream=StringIO())
    with capture_logs() as logged:
        logger.info("after")
    assert logged == [{"event": "after", "log_level": "info"}]


@pytest.mark.parametrize("name", ["uvicorn", "uvicorn.error", "asyncio", "sqlalchemy.pool"])
def test_lines_of_libraries_have_the_same_form(lines: Lines, name: str) -> None:
    logging.getLogger(name).warning("hello %s", "world", extra={"color_message": "\x1b[1mhello"})
    (line,) = lines()
    assert (line["event"], line["level"], line["logger"]) == ("hello world", "warning", name)
    assert "color_message" not in line


def test_uvicorn_access_log_is_disabled(lines: Lines) -> None:
    logging.getLogger("uvicorn.access").info("GET / 200")
    assert lines() == []


def test_lines_below_the_level_are_dropped(lines: Lines) -> None:
    structlog.get_logger("src.test").debug("noise")
    assert lines() == []


@pytest.mark.parametrize("lines", ["WARNING", "ERROR"], indirect=True)
def test_audit_lines_are_written_at_any_level(lines: Lines) -> None:
    entry = Entry(datetime.now(UTC), "login", "success", None, None, None, None, None, "{}")
    statement = Checkpoint(1, CheckpointPurpose.INTERVAL, START, datetime.now(UTC))
    structlog.get_logger("src.test").info("noise")
    write_entry(entry)
    write_checkpoint(AuditKeys(["k" * 32]).sign(statement))
    assert [line["event"] for line in lines()] == ["audit", "audit_checkpoint"]


def test_exception_is_one_line_with_its_traceback(lines: Lines) -> None:
    try:
        failing("boom")
    except RuntimeError:
        structlog.get_logger("src.test").exception("request_failed")
        logging.getLogger("uvicorn.error").exception("it failed")
    ours, theirs = lines()
    assert "RuntimeError: boom" in ours["exception"]
    assert "RuntimeError: boom" in theirs["exception"]


def test_values_without_json_equivalent_are_written_as_text(lines: Lines) -> None:
    structlog.get_logger("src.test").info("odd", value={1: object, None: {1}}, nul="a\0\nb")
    (line,) = lines()
    assert "object" in line["value"]["1"]


@pytest.mark.parametrize(
    "name",
    ["password", "db_password", "JWT_SECRET", "access_token", "Authorization", "api_key", "Cookie"],
)
def test_values_with_secret_names_are_redacted(lines: Lines, name: str) -> None:
    structlog.get_logger("src.test").info("e", **{name: "hunter2", "more": {name: ["hunter2"]}})
    (line,) = lines()
    assert line[name] == line["more"][name] == "[redacted]"


SECRETS = [
    "cannot connect to redis://:hunter2@hx-sqldb-server:6379/0",
    "cannot connect to redis://default:hunter2@hx-sqldb-server:6379/0",
    "postgresql+asyncpg://shield:hunter2@db:5432/shield refused",
    "postgresql://shield:hunter2%2Fhunter2/hunter2@db/shield",
    "postgresql://shield:p@hunter2@db/shield",
    "http://hunter2@gateway:4000/v1",
    "http://shield:hunter2#hunter2?hunter2@gateway:4000",
    'connect("redis://:hunter2@a:1", "redis://:hunter2@b:1")',
    "GET http://gateway/v1?model=m&api_key=hunter2&n=1",
    "http://h/x?X-Amz-Signature=hunter2#access_token=hunter2",
    "/events?ticket=hunter2",
    "{'Authorization': 'Bearer hunter2.hunter2-hunter_2'}",
    "authorization: bearer hunter2",
]


@pytest.mark.parametrize("text", SECRETS)
def test_secrets_in_texts_are_redacted(lines: Lines, text: str) -> None:
    logger = structlog.get_logger("src.test")
    logger.info(text)
    logger.info("failed", error=text, errors=[text], details={"inner": (text,)})
    logging.getLogger("uvicorn.error").error("failed: %s", text)
    try:
        failing(text)
    except RuntimeError:
        logger.exception("failed")
        logging.getLogger("asyncio").exception("failed")
    written = lines()
    assert len(written) == 5
    assert "hunter2" not in orjson.dumps(written).decode()
    assert "[redacted]" in orjson.dumps(written).decode()
