"""Print the OpenAPI document, or a table of the endpoints."""

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from src.commands.output import say
from src.config import Settings
from src.main import create_app

_HEAD = ("| endpoint | what it does | answers |", "| --- | --- | --- |")


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    openapi = commands.add_parser("openapi", help="print the OpenAPI document of the API")
    openapi.add_argument(
        "--markdown", action="store_true", help="print the table of its endpoints instead"
    )
    openapi.set_defaults(run=_openapi)


def _openapi(settings: Settings, options: argparse.Namespace) -> None:
    document = create_app(settings).openapi()
    if options.markdown:
        say("\n".join((*_HEAD, *_rows(document))))
    else:
        say(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())


def _rows(document: Mapping[str, Any]) -> Iterator[str]:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            statuses = ", ".join(sorted(operation["responses"]))
            yield f"| `{method.upper()} {path}` | {operation['summary']} | {statuses} |"
