"""An HTML list of the operations of the API, without scripts, styles or external resources."""

from collections.abc import Iterator, Mapping
from html import escape

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from src.utils.json_types import Json

router = APIRouter(include_in_schema=False)

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}
_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{title}</title>
<h1>{title} {version}</h1>
<p>{description}</p>
<p>For tools: <a href="openapi.json">the OpenAPI document</a></p>
<table>
<tr><th align="left">operation</th><th align="left">what it does</th></tr>
{rows}
</table>
</html>
"""


@router.get("/docs")
async def docs(request: Request) -> HTMLResponse:
    document = request.app.openapi()
    info = {name: escape(document["info"][name]) for name in ("title", "version", "description")}
    page = _PAGE.format(**info, rows="\n".join(_rows(document["paths"])))
    return HTMLResponse(page, headers=_HEADERS)


def _rows(paths: Mapping[str, Json]) -> Iterator[str]:
    for path, operations in paths.items():
        for method, operation in operations.items():
            name = f"<code>{method.upper()} {escape(path)}</code>"
            yield f"<tr><td>{name}</td><td>{escape(operation['summary'])}</td></tr>"
