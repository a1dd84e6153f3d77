"""Print the OpenAPI document, or a table of the endpoints."""

import argparse
from collections.abc import Iterator, Mapping

import orjson

from src.commands.output import echo
from src.config import Settings
from src.main import create_app
from src.utils.json_types import Json

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
        echo("\n".join((*_HEAD, *_rows(document))))
    else:
        echo(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())


def _rows(document: Mapping[str, Json]) -> Iterator[str]:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            statuses = ", ".join(sorted(operation["responses"]))
            yield f"| `{method.upper()} {path}` | {operation['summary']} | {statuses} |"
