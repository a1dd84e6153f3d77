"""The pages of the API's documentation load files of the backend only."""

import re

import pytest

from tests.support.problems import check_problem
from tests.support.unstarted import asking

FILES = {
    "/docs": {"/docs/swagger-ui.css", "/docs/swagger-ui-bundle.js", "/docs/initializer.js"},
    "/redoc": {"/redoc/page.css", "/redoc/redoc.standalone.js", "/redoc/initializer.js"},
}


@pytest.mark.parametrize("path", FILES)
async def test_page_loads_files_of_the_backend(path: str) -> None:
    async with asking() as client:
        page = await client.get(path)
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert page.headers["content-security-policy"].startswith("default-src 'none'; ")
        assert "unsafe" not in page.headers["content-security-policy"]
        loaded = set(re.findall(r'(?:src|href)="(/[^"]*)"', page.text))
        assert loaded == FILES[path]
        for name in loaded:
            answer = await client.get(name)
            assert answer.status_code == 200
            media_type = "text/css" if name.endswith(".css") else "text/javascript"
            assert answer.headers["content-type"] == f"{media_type}; charset=utf-8"
            head = await client.head(name)
            assert head.headers["etag"] == answer.headers["etag"]


@pytest.mark.parametrize(
    "path", ["/docs/", "/docs/nothing.js", "/redoc/swagger-ui.css", "/docs/..%2findex.html"]
)
async def test_other_paths_are_not_found(path: str) -> None:
    async with asking() as client:
        check_problem(await client.get(path), 404, "not-found")
