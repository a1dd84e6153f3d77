"""Swagger UI and Redoc, from files of the image: the pages work without internet."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from src.web.static_files import DIRECTORY, PageFiles, security_headers

_METHODS = ["GET", "HEAD"]
_PACKAGE = "fastapi_standalone_docs"
# Redoc adds an empty style element and fills it by CSSOM. This is the digest of the empty content.
_STYLES_OF_REDOC = "'self' 'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"
_SWAGGER_UI = PageFiles(DIRECTORY / "docs", [(_PACKAGE, "static/swagger")])
_REDOC = PageFiles(
    DIRECTORY / "redoc", [(_PACKAGE, "static/redoc")], security_headers(_STYLES_OF_REDOC)
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
