"""The /metrics endpoint: help texts, correct values, and responses during outages."""

import math
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.builders import shield_event
from tests.support.environment import Environment
from tests.support.proxy import TcpProxy
from tests.support.samples import sample_of
from tests.support.server import Backend, running
from tests.support.waiting import until


async def scraped(backend: Backend) -> str:
    response = await backend.http.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=")
    return response.text


async def shows(backend: Backend, name: str, value: float, **labels: str) -> bool:
    return sample_of(await scraped(backend), f"ag_ui_{name}", **labels) == value


async def test_every_metric_has_a_help_text(backend: Backend) -> None:
    families = list(text_string_to_metric_families(await scraped(backend)))
    ours = {family.name for family in families if family.name.startswith("ag_ui_")}
    assert {
        "ag_ui_stream_entries",
        "ag_ui_group_lag",
        "ag_ui_group_pending",
        "ag_ui_events_stored",
        "ag_ui_dead_letters",
        "ag_ui_dead_letters_open",
        "ag_ui_entries_lost",
        "ag_ui_consumer_batch_entries",
        "ag_ui_consumer_batch_seconds",
    } <= ours
    assert all(family.documentation for family in families)
    assert {"process_cpu_seconds", "process_resident_memory_bytes"} <= {
        family.name for family in families
    }


async def test_endpoint_is_not_documented(backend: Backend) -> None:
    paths = (await backend.http.get("/openapi.json")).json()["paths"]
    assert "/metrics" not in paths


async def test_values_after_events(environment: Environment, backend: Backend) -> None:
    await environment.publish(*(shield_event() for _ in range(5)), {b"hello": b"world"})
    await until(lambda: shows(backend, "events_stored_total", 5))
    assert await shows(backend, "dead_letters_total", 1)
    assert await shows(backend, "dead_letters_open", 1)
    assert await shows(backend, "consumer_batch_entries_sum", 6)
    assert await shows(backend, "stream_entries", 6)
    await until(lambda: shows(backend, "group_pending", 0))
    assert await shows(backend, "group_lag", 0)
    # They exist before the first loss, so that an alarm sees the increase.
    exposed = await scraped(backend)
    for how in ("trimmed_pending", "trimmed_unread", "stream_gone"):
        assert f'ag_ui_entries_lost_total{{how="{how}"}} 0.0\n' in exposed
    for reason in ("unknown", "expired", "trimmed"):
        assert f'ag_ui_gaps_total{{reason="{reason}"}} 0.0\n' in exposed


async def test_values_of_waiting_entries(
    environment: Environment, database_proxy: TcpProxy
) -> None:
    async with running(environment.settings(DATABASE_URL=database_proxy.url)) as backend:
        await database_proxy.refuse()
        await environment.publish(shield_event())
        await until(lambda: shows(backend, "group_pending", 1))
        await environment.publish(*(shield_event() for _ in range(4)))
        assert await shows(backend, "group_lag", 4)
        assert await shows(backend, "stream_entries", 5)
        assert math.isnan(sample_of(await scraped(backend), "ag_ui_dead_letters_open"))
        await environment.trim(2)
        await database_proxy.accept()
        await until(lambda: shows(backend, "entries_lost_total", 2, how="trimmed_unread"), 15)
        await until(lambda: shows(backend, "group_lag", 0))


@pytest.mark.parametrize("fault", ["refuse", "freeze"])
async def test_response_without_redis(
    environment: Environment, redis_proxy: TcpProxy, fault: str
) -> None:
    async with running(environment.settings(REDIS_URL=redis_proxy.url)) as backend:
        assert await shows(backend, "stream_entries", 0)
        assert await shows(backend, "group_lag", 0)
        await redis_proxy.fail(fault)
        began = time.monotonic()
        text = await scraped(backend)
        assert time.monotonic() - began < 3
        for name in ("stream_entries", "group_lag", "group_pending"):
            assert math.isnan(sample_of(text, f"ag_ui_{name}"))
        assert sample_of(text, "process_resident_memory_bytes") > 0
        await redis_proxy.accept()
        await until(lambda: shows(backend, "group_lag", 0))


async def test_group_values_are_nan_without_a_group(
    environment: Environment, database_proxy: TcpProxy
) -> None:
    async with running(environment.settings(DATABASE_URL=database_proxy.url)) as backend:
        await until(lambda: shows(backend, "group_lag", 0))
        await database_proxy.refuse()
        await environment.publish(shield_event())
        await until(lambda: backend.services.consumer.task.status == "waiting for PostgreSQL")
        await environment.destroy_group()
        text = await scraped(backend)
        assert sample_of(text, "ag_ui_stream_entries") == 1
        assert math.isnan(sample_of(text, "ag_ui_group_lag"))
        await database_proxy.accept()
