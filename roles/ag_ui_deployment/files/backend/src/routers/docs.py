"""Swagger UI and Redoc, from files of the image: the pages work without internet."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from src.web.static_files import DIRECTORY, PageFiles, security_headers

_METHODS = ["GET", "HEAD"]
_PACKAGE = "fastapi_standalone_docs"
# Digests of the two style elements that Redoc adds: an empty one, which it fills by CSSOM, and the
# styles of its scroll bars. The test in Chromium fails if a release of Redoc has others.
_REDOC_STYLES = (
    "'self' 'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"
    " 'sha256-QMIg+bpjm3JdElJ388KYke01izlUW0UoNOeKjpMxdgc='"
)
_SWAGGER_UI = PageFiles(DIRECTORY / "docs", [(_PACKAGE, "static/swagger")])
_REDOC = PageFiles(
    DIRECTORY / "redoc", [(_PACKAGE, "static/redoc")], security_headers(_REDOC_STYLES)
)

router = APIRouter(include_in_schema=False)


def _serve(path: str, files: PageFiles) -> None:
    """Adds the routes of a page and of the files that it loads."""

    @router.api_route(path, methods=_METHODS)
    async def get_page(request: Request) -> Response:
        return await files.get_response("index.html", request.scope)

    @router.api_route(path + "/{name}", methods=_METHODS)
    async def get_file(name: str, request: Request) -> Response:
        return await files.get_response(name, request.scope)


_serve("/docs", _SWAGGER_UI)
_serve("/redoc", _REDOC)
