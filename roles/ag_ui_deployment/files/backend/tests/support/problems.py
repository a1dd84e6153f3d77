"""Checks of problem documents in responses."""

from typing import Any

import httpx

PROBLEM = "application/problem+json"


def check_problem(response: httpx.Response, status: int, slug: str) -> dict[str, Any]:
    """Check the members that every problem document has.

    Args:
        response: The response.
        status: The expected status code.
        slug: The end of the expected problem type.

    Returns:
        The problem document.
    """
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == PROBLEM
    body: dict[str, Any] = response.json()
    assert body["status"] == status
    assert body["type"] == f"urn:shield-ag-ui:problem:{slug}"
    assert body["title"]
    assert body["detail"]
    assert body["request_id"] == response.headers["x-request-id"]
    return body
