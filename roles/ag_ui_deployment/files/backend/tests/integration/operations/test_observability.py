"""Every query of the dashboard, the rules and the alarms has values from a running instance."""

import asyncio
import json
import re
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml  # type: ignore[import-untyped]

from src.models.permissions import Role
from src.services.agent.retention import AgentRetention
from tests.support.agent import run_input, whole_run
from tests.support.builders import shield_event
from tests.support.environment import Environment
from tests.support.prometheus_server import (
    OBSERVABILITY,
    Prometheus,
    exposition_server,
    running_prometheus,
)
from tests.support.server import Backend, running
from tests.support.sse import sse
from tests.support.tls_proxy import tls_proxy
from tests.support.waiting import until

TOKEN = "a-token-for-prometheus-that-is-long-enough"
# The names that the backup writes for the node exporter.
BACKUP = "".join(
    f"ag_ui_backup_{name} {value}\n"
    for name, value in {
        "ok": 1,
        "last_run_timestamp_seconds": 1.8e9,
        "last_success_timestamp_seconds": 1.8e9,
        "duration_seconds": 20,
        "size_bytes": 1e6,
        "archives": 7,
    }.items()
)
# Between the value of an alarm and its limit.
COMPARISON = re.compile(" (?:==|!=|<|>) ")


def expressions() -> set[str]:
    """Return what the dashboard shows and the rules record, and the values that alarms compare."""
    found = set()
    dashboard = json.loads((OBSERVABILITY / "grafana-dashboard.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            query = target["expr"].replace("$instance", ".*").replace("$__rate_interval", "1m")
            assert "$" not in query
            found.add(query)
    for file in OBSERVABILITY.glob("*-rules.yml"):
        for group in yaml.safe_load(file.read_text())["groups"]:
            found |= {COMPARISON.split(rule["expr"])[0] for rule in group["rules"]}
    return found


async def cause_everything(backend: Backend, environment: Environment, token: str) -> None:
    """Use the instance so that each of its metrics has a value."""
    authorization = {"Authorization": f"Bearer {token}"}
    async with sse(backend.http, token=token) as client:
        first, *_ = await environment.publish(
            shield_event("job:started", job="first"),
            shield_event("job:complete", job="first"),
            shield_event("job:progress", {"after": "the end"}, job="first"),
            {b"not": b"an event"},
        )
        await client.until(lambda it: str(first) in it.ids)
        refused = await backend.http.get("/events", headers=authorization)
        assert refused.status_code == httpx.codes.TOO_MANY_REQUESTS
    await until(lambda: backend.services.events.stream_server.count == 0)
    async with sse(backend.http, token=token, after=first) as client:
        await client.until(lambda it: it.events)
    await be_too_slow(backend, environment, token)
    wrong = {"email": "nobody@shield.test", "password": "a wrong password"}
    statuses = [(await backend.http.post("/auth/login", json=wrong)).status_code for _ in range(2)]
    assert statuses[1] == httpx.codes.TOO_MANY_REQUESTS
    # There is no gateway.
    events = await whole_run(backend.http, token, run_input("Hello"))
    assert events[-1]["type"] == "RUN_ERROR"


async def be_too_slow(backend: Backend, environment: Environment, token: str) -> None:
    """Open a stream and read nothing of it until it is closed."""
    server = backend.services.events.stream_server
    await until(lambda: server.count == 0)
    address = backend.http.base_url
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect((address.host, address.port))
        slow.sendall(
            f"GET /events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
        )
        await until(lambda: server.count == 1)
        for n in range(60):
            big = shield_event("worker.started", {"n": n, "x": "x" * 200_000}, job=None)
            (last,) = await environment.publish(big)
        await until(lambda: backend.services.events.hub.last_id == last)
    await until(lambda: server.count == 0)


async def deliver_one_event(backend: Backend, environment: Environment, token: str) -> None:
    await until(lambda: backend.services.events.stream_server.count == 0)
    async with sse(backend.http, token=token) as client:
        (one,) = await environment.publish(shield_event())
        await client.until(lambda it: str(one) in it.ids)


async def without_values(
    prometheus: Prometheus, backend: Backend, environment: Environment, token: str
) -> set[str]:
    """Return the expressions that have no value although the instance is used for half a minute."""
    missing = expressions()
    for _ in range(60):
        await deliver_one_event(backend, environment, token)
        missing = {query for query in missing if not await prometheus.has_value(query)}
        if not missing:
            break
        await asyncio.sleep(0.5)
    return missing


async def alarms_in(prometheus: Prometheus, state: str) -> set[str]:
    return {rule["name"] for rule in await prometheus.rules() if rule.get("state") == state}


async def test_every_query_has_values(
    environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AgentRetention, "first_seconds", 0.1)
    (tmp_path / "ag-ui-token").write_text(f"{TOKEN}\n")
    settings: dict[str, Any] = {
        "METRICS_TOKEN": TOKEN,
        "STREAMS_PER_USER": 1,
        "CLIENT_BUFFER_BYTES": 64 * 1024,
        "RATE_LOGIN_PER_ADDRESS": "1/hour",
        "LITELLM_URL": "http://127.0.0.1:1",
    }
    async with (
        tls_proxy(tmp_path, datetime.now(UTC) + timedelta(days=30)) as proxy_port,
        running(environment.settings(PROXY_PORT=proxy_port, **settings)) as backend,
        exposition_server(BACKUP) as node,
    ):
        token = backend.token_of(await backend.add_user("admin@shield.test", Role.ADMIN))
        instance = {
            "job_name": "ag-ui",
            "authorization": {"credentials_file": "ag-ui-token"},
            "static_configs": [{"targets": [backend.http.base_url.netloc.decode()]}],
        }
        exporter = {"job_name": "node", "static_configs": [{"targets": [node]}]}
        async with running_prometheus(tmp_path, instance, exporter) as prometheus:
            await cause_everything(backend, environment, token)
            assert await without_values(prometheus, backend, environment, token) == set()
            assert {rule["health"] for rule in await prometheus.rules()} == {"ok"}

            async def dead_letter_is_reported() -> bool:
                return "AgUiDeadLetters" in await alarms_in(prometheus, "firing")

            await until(dead_letter_is_reported)
            assert "AgUiInstanceDown" in await alarms_in(prometheus, "inactive")
