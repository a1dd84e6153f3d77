"""The service under systemd: stop, start, restart, crashes and reboots."""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.scenarios.support.http import request
from tests.scenarios.support.site import RESTART_LIMIT
from tests.support.waiting import Stopwatch, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.scenarios.support.figures import Figures
    from tests.scenarios.support.site import Site

TARGET = "ag-ui.target"


@pytest.fixture(autouse=True)
def running(site: Site) -> Iterator[None]:
    """Start the target and all instances after each test."""
    yield
    site.dev.systemctl("start", "docker.service", TARGET, *map(site.unit, site.ports))
    site.wait_until_healthy()


def serves(site: Site) -> bool:
    """Whether the proxy reaches an instance that is ready."""
    return request(site.proxy, "GET", "/health/ready").status == 200


def names(site: Site, ports: list[int]) -> set[str]:
    return {site.container(port) for port in ports}


def test_units_are_active_and_have_containers(site: Site) -> None:
    for unit in (TARGET, *map(site.unit, site.ports)):
        shown = site.dev.systemctl("status", "--no-pager", unit)
        assert "Active: active" in shown
    assert set(site.containers()) == names(site, site.ports)


def test_units_are_enabled(site: Site) -> None:
    for unit in (TARGET, "docker.service", "nginx.service"):
        assert site.dev.host.service(unit).is_enabled, unit


def test_stopped_instance_is_taken_out_and_ready_after_start(site: Site) -> None:
    for port in site.ports:
        others = [it for it in site.ports if it != port]
        site.dev.systemctl("stop", site.unit(port))
        assert not site.dev.is_active(site.unit(port))
        assert site.dev.host.run("systemctl status %s", site.unit(port)).rc == 3
        assert set(site.containers()) == names(site, others)
        for _ in range(2 * len(site.ports)):
            assert serves(site)
        site.dev.systemctl("start", site.unit(port))
        assert site.is_ready(port), "started means ready"
        assert set(site.containers()) == names(site, site.ports)


def test_restart_of_one_instance_leaves_the_others(site: Site, figures: Figures) -> None:
    port, *others = site.ports
    before = site.containers()
    watch = Stopwatch()
    site.dev.systemctl("restart", site.unit(port))
    figures.record("restart_of_one_instance_until_ready", watch.seconds, "s")
    assert site.is_ready(port)
    after = site.containers()
    assert after[site.container(port)] != before[site.container(port)]
    for other in others:
        assert after[site.container(other)] == before[site.container(other)]


def test_target_stops_and_starts_all_instances(site: Site) -> None:
    site.dev.systemctl("stop", TARGET)
    site.wait_until_gone()
    for unit in (TARGET, *map(site.unit, site.ports)):
        assert not site.dev.is_active(unit)
    answer = request(site.proxy, "GET", "/health")
    assert answer.status in {502, 503}
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    site.dev.systemctl("start", TARGET)
    eventually(lambda: all(map(site.is_ready, site.ports)), "all ready", within=RESTART_LIMIT)
    assert set(site.containers()) == names(site, site.ports)


def test_target_restarts_all_instances(site: Site) -> None:
    before = site.containers()
    site.dev.systemctl("restart", TARGET)
    eventually(lambda: all(map(site.is_ready, site.ports)), "all ready", within=RESTART_LIMIT)
    after = site.containers()
    assert set(after) == set(before) == names(site, site.ports)
    assert not set(after.values()) & set(before.values())


def test_sigterm_stops_the_container_with_status_0(site: Site, figures: Figures) -> None:
    """The backend exits on SIGTERM, without SIGKILL."""
    port = site.ports[0]
    began, watch = int(time.time()), Stopwatch()
    site.dev.systemctl("stop", site.unit(port))
    figures.record("stop_of_one_instance", watch.seconds, "s")
    assert "Result=success" in site.dev.systemctl("show", "--property=Result", site.unit(port))
    # The status of the unit is that of the docker client, which systemd may end first.
    codes = site.dev.run(
        *("docker", "events", f"--since={began}", f"--until={int(time.time()) + 1}"),
        *(f"--filter=container={site.container(port)}", "--filter=event=die"),
        "--format={{.Actor.Attributes.exitCode}}",
    )
    assert codes.split() == ["0"]


def test_killed_docker_client_is_replaced_with_its_container(site: Site, figures: Figures) -> None:
    port = site.ports[0]
    before = site.containers()
    unit = site.unit(port)
    client = site.dev.systemctl("show", "--property=MainPID", "--value", unit).strip()
    site.dev.run("kill", "-9", client)
    watch = Stopwatch()
    eventually(
        lambda: (
            site.containers().get(site.container(port), before[site.container(port)])
            != before[site.container(port)]
            and site.is_ready(port)
        ),
        "a new container that is ready",
        within=RESTART_LIMIT,
    )
    figures.record("ready_after_kill_of_the_docker_client", watch.seconds, "s")
    assert set(site.containers()) == names(site, site.ports)
    eventually(lambda: site.dev.is_active(unit), "the unit active", within=60)
    assert serves(site)


def test_killed_container_is_replaced(site: Site) -> None:
    port = site.ports[-1]
    before = site.containers()[site.container(port)]
    site.dev.run("docker", "kill", "--signal", "KILL", site.container(port))
    eventually(
        lambda: (
            site.containers().get(site.container(port), before) != before and site.is_ready(port)
        ),
        "a new container that is ready",
        within=RESTART_LIMIT,
    )


def test_service_recovers_from_a_restart_of_docker(site: Site, figures: Figures) -> None:
    before = set(site.containers().values())
    watch = Stopwatch()
    site.dev.systemctl("restart", "docker.service")
    site.wait_until_healthy()
    figures.record("healthy_after_restart_of_docker", watch.seconds, "s")
    assert set(site.containers()) == names(site, site.ports)
    assert not before & set(site.containers().values())
    assert site.dev.is_active(TARGET)


def test_service_recovers_from_a_stop_and_start_of_docker(site: Site) -> None:
    site.dev.run("systemctl", "stop", "docker.socket", "docker.service")
    for port in site.ports:
        assert not site.is_ready(port)
    site.dev.systemctl("start", "docker.service")
    site.wait_until_healthy()
    assert set(site.containers()) == names(site, site.ports)


def test_service_starts_after_a_reboot_of_the_host(site: Site, figures: Figures) -> None:
    address = site.dev.address
    watch = Stopwatch()
    subprocess.run(["docker", "restart", "--time", "30", site.dev.name], check=True, timeout=120)
    site.wait_until_healthy(within=120)
    figures.record("healthy_after_restart_of_the_host", watch.seconds, "s")
    site.dev.__dict__.pop("address")
    assert site.dev.address == address
    assert set(site.containers()) == names(site, site.ports)
    for unit in (TARGET, "nginx.service", *map(site.unit, site.ports)):
        assert site.dev.is_active(unit)


def test_service_reconnects_after_a_reboot_of_the_datastores(site: Site) -> None:
    """The service keeps running and reconnects to its datastores."""
    before = site.containers()
    subprocess.run(
        ["docker", "restart", "--time", "30", site.datastores.name], check=True, timeout=120
    )
    site.wait_until_healthy(within=120)
    assert site.containers() == before
