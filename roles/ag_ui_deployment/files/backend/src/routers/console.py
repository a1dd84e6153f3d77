"""The console: a single-page application, built from the directory `console/` of the backend."""

from pathlib import Path

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from src.utils.errors import DomainError, NotFoundError
from src.web.static_files import DIRECTORY, PageFiles

BUILT = DIRECTORY / "console"
_INDEX = "index.html"
_ASSETS = "assets/"
_METHODS = ["GET", "HEAD"]
# The paths of links in mails, below PUBLIC_URL.
_MAILED = ("/register", "/verify-email", "/reset-password")


class ConsoleNotBuiltError(DomainError):
    status = 404
    slug = "console-not-built"
    title = "This installation has no console"
    detail = "The console has not been built into the directory static/console of the backend."


def create_router(directory: Path = BUILT) -> APIRouter:
    """Creates the routes of the console, whose files are in this directory."""
    router = APIRouter(include_in_schema=False)
    files = PageFiles(directory)

    async def file(name: str, request: Request) -> Response | None:
        try:
            return await files.get_response(name, request.scope)
        except HTTPException as error:
            if error.status_code != NotFoundError.status:
                raise
            return None

    # Relative, since anybody may choose the Host header of a request.
    @router.api_route("/console", methods=_METHODS)
    async def add_slash() -> RedirectResponse:
        return RedirectResponse("/console/")

    async def open_in_console(request: Request) -> RedirectResponse:
        """Leads the link of a mail to the console; browsers keep the fragment, which has the token."""
        return RedirectResponse(f"/console{request.url.path}", 303)

    for path in _MAILED:
        router.add_api_route(path, open_in_console, methods=_METHODS)

    @router.api_route("/console/{path:path}", methods=_METHODS)
    async def get_console(path: str, request: Request) -> Response:
        """A file, or the page, which has the routes of all other paths.

        A missing asset is not found, so that nginx asks another instance: during a release, the page
        may be that of an instance with other assets.
        """
        found = await file(path, request)
        if found is None and path.startswith(_ASSETS):
            raise NotFoundError
        page = found or await file(_INDEX, request)
        if page is None:
            raise ConsoleNotBuiltError
        return page

    return router
