"""The service reports its health soon after it changes, and streams survive an outage."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.scenarios.support.http import EventStream, request
from tests.scenarios.support.jobs import Job
from tests.support.metadata import backend_version
from tests.support.waiting import Stopwatch, eventually

if TYPE_CHECKING:
    from tests.scenarios.support.figures import Figures
    from tests.scenarios.support.site import Account, Site
    from tests.shield import Publisher

DEGRADED_WITHIN = 5.0
HEALTHY_WITHIN = 10.0


def status(site: Site) -> str:
    answer = request(site.proxy, "GET", "/health")
    assert answer.status == 200, answer
    return str(answer.json()["status"])


def test_all_checks_are_ok_through_the_proxy(site: Site) -> None:
    assert status(site) == "healthy"
    checks = site.health()["checks"]
    assert checks
    assert {
        name: check["detail"] for name, check in checks.items() if check["status"] != "ok"
    } == {}


def test_every_instance_is_live_and_ready(site: Site) -> None:
    for instance in site.instances:
        for path in ("/health/live", "/health/ready"):
            assert request(instance, "GET", path).status == 200, (instance.name, path)


def test_documentation_is_served_through_the_proxy(site: Site) -> None:
    card = request(site.proxy, "GET", "/").json()
    assert card["docs"] == "/docs"
    assert card["health"] == "/health"
    assert request(site.proxy, "GET", "/docs").status == 200
    document = request(site.proxy, "GET", "/openapi.json").json()
    assert "/events" in document["paths"]
    # The image has it, so that no start derives it.
    container = site.container(site.ports[0])
    assert json.loads(site.dev.run("docker", "exec", container, "cat", "openapi.json")) == document


def test_api_and_image_have_the_same_version(site: Site) -> None:
    card = request(site.proxy, "GET", "/").json()
    document = request(site.proxy, "GET", "/openapi.json").json()
    image = site.inspect(site.inspect(site.container(site.ports[0]))["Image"])
    label = image["Config"]["Labels"]["org.opencontainers.image.version"]
    assert {card["version"], document["info"]["version"], label} == {backend_version()}


@pytest.mark.parametrize("kind", ["redis", "database"])
def test_streams_survive_an_outage_of_a_datastore(
    site: Site, user: Account, publisher: Publisher, figures: Figures, kind: str
) -> None:
    job = Job(owner=user.id)
    with EventStream(site.proxy, "/events", user.token) as stream:
        stream.wait_until_subscribed()
        before = publisher.publish(job.started())
        stream.wait_for_id(before)

        with site.datastores.stopped(*site.datastore_units(kind)):
            stopped = Stopwatch()
            eventually(
                lambda: status(site) == "degraded",
                f"degraded without {kind}",
                within=DEGRADED_WITHIN,
            )
            figures.record(f"degraded_after_stop_of_{kind}", stopped.seconds, "s")
            card = site.health()
            assert card["redis_connected"] is (kind != "redis")
            assert card["checks"][kind]["status"] != "ok"
            assert card["checks"][kind]["detail"]
            for instance in site.instances:
                assert request(instance, "GET", "/health/ready").status == 200
            if kind == "database":
                stream.wait_for_id(publisher.publish(job.chunk()))
            assert stream.is_open

        started = Stopwatch()
        eventually(lambda: status(site) == "healthy", f"healthy with {kind}", within=HEALTHY_WITHIN)
        figures.record(f"healthy_after_start_of_{kind}", started.seconds, "s")
        assert stream.is_open
        stream.wait_for_id(publisher.publish(job.chunk()))
        stream.wait_for_id(publisher.publish(job.complete()))
        assert stream.ids == sorted(set(stream.ids), key=lambda it: tuple(map(int, it.split("-"))))
    eventually(lambda: len(site.stored(job.id)) == job.event_count, "every event stored", within=60)


def test_login_during_a_database_outage_is_503(site: Site) -> None:
    with site.datastores.stopped(*site.datastore_units("database")):
        answer = site.ask_for_token("contributor@example.com", "whatever it may be")
        assert answer.status == 503, answer
        assert answer.headers["content-type"] == "application/problem+json"
        assert int(answer.headers["retry-after"]) > 0
