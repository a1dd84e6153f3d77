"""Configures one JSON log for the application, Uvicorn and libraries, with secrets redacted."""

import logging
import re
import sys
from collections.abc import Iterable
from typing import Any, TextIO

import orjson
import structlog
from structlog.typing import EventDict, WrappedLogger

from src.utils.redaction import REDACTED, redact_text

_SECRET_NAME = re.compile(r"password|secret|token|authorization|api_key|cookie", re.IGNORECASE)


def configure_logging(
    level: str, *, always: Iterable[str] = (), stream: TextIO | None = None
) -> None:
    """Write all log records to a stream, one JSON object per line.

    Loggers are not cached on first use, since a cached one would keep an earlier configuration.

    Args:
        level: The minimum level.
        always: Names of loggers that write records of level INFO whatever `level` is.
        stream: The stream; standard output by default.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _drop_colours,
        redact,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    handler = logging.StreamHandler(stream or sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(serializer=_dumps),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for name in always:
        logging.getLogger(name).setLevel(logging.INFO)
    _propagate_to_root("uvicorn", "uvicorn.error", "asyncio", "alembic")
    # RequestContext logs requests instead, with the request id.
    logging.getLogger("uvicorn.access").disabled = True
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # At level DEBUG sse-starlette logs every chunk that it sends.
    logging.getLogger("sse_starlette").setLevel(logging.INFO)


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """A structlog processor that redacts values with secret names, and secrets inside texts."""
    return {key: _redact_value(key, value) for key, value in event.items()}


def _drop_colours(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Remove the copy of the message with terminal colours that Uvicorn adds."""
    event.pop("color_message", None)
    return event


def _redact_value(name: str, value: Any) -> Any:
    if _SECRET_NAME.search(name):
        return REDACTED
    if isinstance(value, dict):
        return {key: _redact_value(str(key), inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_redact_value("", inner) for inner in value]
    if isinstance(value, str):
        return redact_text(value)
    return value


def _propagate_to_root(*names: str) -> None:
    for name in names:
        logger = logging.getLogger(name)
        logger.handlers = []
        logger.propagate = True


def _dumps(event: EventDict, **_options: Any) -> str:
    return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
