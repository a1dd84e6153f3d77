"""End-to-end tests through nginx, from the login to the audit log, with all failures of Shield."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import pytest

from tests.scenarios.support.api_client import QUESTION, ApiClient, failure_of, text_of
from tests.scenarios.support.gateway import REQUESTS_PER_MINUTE
from tests.scenarios.support.http import request
from tests.support.waiting import Stopwatch, eventually

if TYPE_CHECKING:
    from tests.scenarios.support.gateway import Gateway
    from tests.scenarios.support.http import Answer, Route
    from tests.scenarios.support.site import Account, Site

ANSWER: Final = "hx-vectordb-server"
SITE: Final = "https://8.8.8.8/"
"""The URL to crawl; an IP address, since DNS lookups may time out where the tests run."""
ACCEPTED_WITHIN: Final = 2.0
"""Seconds within which a job must be accepted."""
RECOVERY: Final = 60.0
"""Seconds until calls succeed again, including the pause of the circuit breaker."""


def assert_problem(answer: Answer, status: int, slug: str) -> None:
    assert answer.status == status, answer
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"].endswith(slug)
    assert problem["detail"]


def wait_until_gateway_works(api_client: ApiClient) -> None:
    """Wait until all instances have noticed that the gateway is back."""
    eventually(
        lambda: api_client.ask().status == 200 and api_client.site.is_healthy(),
        "tools that answer, and a healthy service",
        within=RECOVERY,
        every=0.5,
    )


def test_login_jobs_tools_agent_and_audit(
    site: Site, api_client: ApiClient, stranger: Account, admin: Account
) -> None:
    # The gateway's first answer takes seconds, which must not be part of the timing.
    wait_until_gateway_works(api_client)
    email = f"{uuid4().hex}@example.com"
    api_client = ApiClient(site, site.account(email, "contributor"))
    job = crawl(api_client)
    assert ApiClient(site, stranger).get(f"/api/jobs/{job}").status == 404
    assert ApiClient(site, stranger).get(f"/api/jobs/{job}/events").status == 404

    answered = api_client.ask()
    assert answered.status == 200, answered
    assert ANSWER in answered.json()["answer"]

    run, events = api_client.run_agent('call qdrant_find {"query": "vector database"}')
    assert run.outcome == "success"
    [result] = [it["content"] for it in events if it["type"] == "TOOL_CALL_RESULT"]
    assert ANSWER in result
    assert text_of(events).startswith("Done: ")
    for instance in site.instances:
        replay, replayed = api_client.follow(instance, f"/agent/runs/{run.run_id}/events")
        assert (replay.outcome, text_of(replayed)) == ("success", text_of(events))

    assert_audited(ApiClient(site, admin), email)


def crawl(api_client: ApiClient) -> str:
    """Start a crawl, follow it to its end and check its final state; return its id."""
    watch = Stopwatch()
    accepted = api_client.post("/api/crawl", url=SITE, max_pages=3)
    assert accepted.status == 202, accepted
    assert watch.seconds < ACCEPTED_WITHIN
    job = accepted.json()
    run, _ = api_client.follow(api_client.site.proxy, job["events"])
    assert (run.run_id, run.outcome) == (job["job_id"], "success")

    def shown() -> bool:
        return bool(api_client.get(job["job"]).json()["status"] == "completed")

    eventually(shown, "the job has ended", within=60)
    listed = api_client.get("/api/jobs").json()["items"]
    assert job["job_id"] in {it["id"] for it in listed}
    return str(job["job_id"])


def assert_audited(admin: ApiClient, email: str) -> None:
    entries = admin.get(f"/admin/audit?actor={email}&limit=200").json()["items"]
    done = {(it["action"], it["outcome"]) for it in entries}
    assert {("login", "success"), ("tool.call", "success"), ("agent.run", "success")} <= done
    targets = {it["target"] for it in entries if it["action"] == "tool.call"}
    assert {"tool:crawl_web", "tool:lightrag_query", "tool:qdrant_find"} <= targets
    assert QUESTION not in json.dumps(entries)
    verified = admin.get("/admin/audit/verify")
    assert verified.status == 200, verified
    assert verified.json()["intact"] is True


def test_unavailable_gateway_is_503(api_client: ApiClient, gateway: Gateway) -> None:
    with gateway.without("proxy"):
        for answer in (api_client.ask(), api_client.post("/api/crawl", url=SITE)):
            assert_problem(answer, 503, "gateway-unavailable")
            assert int(answer.headers["retry-after"]) > 0
        _, events = api_client.run_agent("Hello")
        assert failure_of(events) == "gateway_unavailable"
        assert api_client.get("/api/jobs").status == 200
        for instance in api_client.site.instances:
            eventually(
                lambda instance=instance: circuit_breaker_is_open(api_client, instance),  # type: ignore[misc]
                f"health of {instance.name} reports the outage of the gateway",
                within=60,
            )
            answer = api_client.ask(route=instance)
            assert_problem(answer, 503, "gateway-unavailable")
            assert 1 <= int(answer.headers["retry-after"]) <= 15
    wait_until_gateway_works(api_client)


def circuit_breaker_is_open(api_client: ApiClient, instance: Route) -> bool:
    """Whether the instance's circuit breaker is open and its health report says so."""
    api_client.ask(route=instance)
    report = request(instance, "GET", "/health").json()
    check = report["checks"]["gateway"]
    return (report["status"], check["status"]) == ("degraded", "down") and (
        "in a row failed" in check["detail"]
    )


def test_rate_limited_key_is_503(api_client: ApiClient, gateway: Gateway) -> None:
    with gateway.with_limited_keys():
        # This number of calls exceeds the limit per minute even if they span two minutes.
        answers = [api_client.ask() for _ in range(2 * REQUESTS_PER_MINUTE + 1)]
        busy = [answer for answer in answers if answer.status != 200]
        assert busy
        for answer in busy:
            assert_problem(answer, 503, "gateway-busy")
            assert 1 <= int(answer.headers["retry-after"]) <= 60
    wait_until_gateway_works(api_client)


def test_refused_key_is_502(api_client: ApiClient, gateway: Gateway) -> None:
    with gateway.without_keys():
        answer = api_client.ask()
        assert_problem(answer, 502, "gateway-refused")
        assert api_client.site.settings["LITELLM_API_KEY"].encode() not in answer.body
        _, events = api_client.run_agent("Hello")
        assert failure_of(events) == "gateway_refused"
    wait_until_gateway_works(api_client)


@pytest.mark.parametrize(
    ("outcome", "shown"),
    [
        ("silent", {"status": "completed", "percent": 100.0, "lost": False}),
        ("vanished", {"status": "running", "lost": True}),
    ],
)
def test_outcome_of_a_silent_job_comes_from_the_orchestrator(
    api_client: ApiClient, outcome: str, shown: dict[str, Any]
) -> None:
    """The backend asks the orchestrator for the outcome."""
    accepted = api_client.post("/api/crawl", url=f"{SITE}?outcome={outcome}", max_pages=2)
    assert accepted.status == 202, accepted
    path = accepted.json()["job"]

    def is_completed() -> bool:
        job = api_client.get(path).json()
        listed = {it["id"]: it for it in api_client.get("/api/jobs").json()["items"]}.get(
            job["id"], {}
        )
        return all(shown.items() <= it.items() for it in (job, listed))

    eventually(is_completed, f"{outcome}: {shown}", within=60)


def test_call_is_not_retried_after_the_tools_die(api_client: ApiClient, gateway: Gateway) -> None:
    """The call may have taken effect, so it is not retried; the response says so."""
    marker = uuid4().hex
    url = f"{SITE}{marker}?fault=slow-60"
    with ThreadPoolExecutor() as pool:
        answering = pool.submit(api_client.post, "/api/crawl", url=url)
        eventually(lambda: gateway.calls("tools", marker), "the call has arrived", within=60)
        with gateway.without("tools"):
            answer = answering.result(30)
            assert_problem(answer, 502, "tools-unavailable")
            assert "GET /api/jobs" in answer.json()["detail"]
            assert_problem(api_client.ask(), 502, "tools-unavailable")
    wait_until_gateway_works(api_client)
    assert gateway.calls("tools", marker) == []


def test_slow_tool_is_504(api_client: ApiClient, gateway: Gateway) -> None:
    marker = uuid4().hex
    answer = api_client.post("/api/crawl", url=f"{SITE}{marker}?fault=slow-60")
    assert_problem(answer, 504, "upstream-timeout")
    assert "GET /api/jobs" in answer.json()["detail"]
    assert len(gateway.calls("tools", marker)) == 1


@pytest.mark.parametrize(
    ("fault", "status", "slug"), [("error", 422, "tool-rejected"), ("crash", 502, "tool-failed")]
)
def test_failed_tool_is_reported_without_internal_details(
    api_client: ApiClient, fault: str, status: int, slug: str
) -> None:
    answer = api_client.ask(f"fault={fault}")
    assert_problem(answer, status, slug)
    # Internal details of the exception must not leak.
    assert b"hunter2" not in answer.body
    assert b"/opt/" not in answer.body


def test_rate_limited_model_is_retried_once(api_client: ApiClient) -> None:
    marker = uuid4().hex
    run, events = api_client.run_agent(f"Hello {marker} fault=429 times=1")
    assert (run.outcome, text_of(events)) == ("success", f"Echo: Hello {marker} fault=429 times=1")
    _, events = api_client.run_agent("Hello fault=429")
    assert failure_of(events) == "rate_limited"


def test_broken_model_answer_fails_the_run(api_client: ApiClient) -> None:
    run, events = api_client.run_agent("one two three four five fault=cut")
    assert failure_of(events) == "model_failed"
    assert text_of(events) == "Echo: one two"
    replay, replayed = api_client.follow(
        api_client.site.instances[0], f"/agent/runs/{run.run_id}/events"
    )
    assert (replay.outcome, text_of(replayed)) == (run.outcome, text_of(events))
