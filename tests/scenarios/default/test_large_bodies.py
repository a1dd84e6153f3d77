"""The instances stay responsive under bodies of the maximum size, depth and number."""

from __future__ import annotations

import json
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from tests.scenarios.support.http import request
from tests.scenarios.support.process_metrics import peak_memory, processes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.scenarios.support.figures import Figures
    from tests.scenarios.support.http import Answer
    from tests.scenarios.support.site import Account, Site

MEBIBYTE: Final = 1024 * 1024
LIMIT: Final = 1024
"""Memory limit of an instance in MiB, as the role sets it."""
JSON: Final = {"Content-Type": "application/json"}


def body_of_messages() -> bytes:
    """Return a valid body of nearly 4 MiB and 20,000 values, in the slowest shape to validate."""
    messages = [
        {
            "id": f"message-{number}",
            "role": "assistant",
            "toolCalls": [call(f"call-{number}-{index}") for index in range(2)],
        }
        for number in range(1200)
    ]
    document: dict[str, Any] = {
        "threadId": f"thread-{uuid4()}",
        "runId": f"run-{uuid4()}",
        "state": {},
        "messages": messages,
        "tools": [],
        "context": [],
        "forwardedProps": {},
    }
    return json.dumps(document).encode()


def call(call_id: str) -> dict[str, Any]:
    function = {"name": "search", "arguments": json.dumps({"query": "x" * 1500})}
    return {"id": call_id, "type": "function", "function": function}


def measure_liveness(site: Site, stop: threading.Event) -> Iterator[float]:
    """Yield the response time of /health/live in seconds."""
    while not stop.is_set():
        began = time.monotonic()
        assert request(site.proxy, "GET", "/health/live").status == 200
        yield time.monotonic() - began


def send_at_once(
    site: Site, bodies: Sequence[tuple[str | None, bytes]]
) -> tuple[list[Answer], list[float]]:
    """Send the bodies concurrently; return the answers and the response times of /health/live."""
    stop = threading.Event()

    def send(one: tuple[str | None, bytes]) -> Answer:
        token, body = one
        # This route validates the same input as a run and makes no call to the model.
        return request(site.proxy, "POST", "/agent/connect", token=token, body=body, headers=JSON)

    with ThreadPoolExecutor(len(bodies) + 1) as threads:
        measuring = threads.submit(lambda: list(measure_liveness(site, stop)))
        answers = list(threads.map(send, bodies))
        stop.set()
        return answers, measuring.result()


def test_deeply_nested_bodies_without_login_do_not_block_instances(
    site: Site, figures: Figures
) -> None:
    before = processes(site)
    nested = b'{"a":' * (3 * MEBIBYTE // 5)
    answers, liveness_seconds = send_at_once(site, [(None, nested)] * 40)
    assert 401 in {answer.status for answer in answers}
    assert {answer.status for answer in answers} <= {401, 429, 503}
    assert statistics.median(liveness_seconds) < 0.5
    assert processes(site) == before
    figures.record("slowest_liveness_beside_nested_bodies", max(liveness_seconds) * 1000, "ms")


def test_thirty_concurrent_large_bodies_stay_within_the_memory_limit(
    site: Site, figures: Figures, admin: Account, user: Account, stranger: Account
) -> None:
    before = processes(site)
    users = (admin, user, stranger)
    bodies = [(one.token, body_of_messages()) for one in users for _ in range(10)]
    answers, liveness_seconds = send_at_once(site, bodies)
    statuses = [answer.status for answer in answers]
    # Requests that wait too long for a slot are refused.
    assert set(statuses) <= {200, 429, 503}
    assert statuses.count(200) >= len(users)
    assert statistics.median(liveness_seconds) < 0.5
    assert processes(site) == before
    peak = max(peak_memory(site).values())
    assert peak < LIMIT
    taken = f"{statuses.count(200)} of 30 taken"
    figures.record(
        "slowest_liveness_beside_large_bodies", max(liveness_seconds) * 1000, "ms", taken
    )
    figures.record("peak_memory_after_large_bodies", peak, "MiB")
