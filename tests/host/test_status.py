"""`ag-ui status`: what it shows, and when it fails."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.certificates import sign

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.deployed_host import Host


def problems(host: Host) -> dict[str, tuple[str, str]]:
    """Return status and detail of each check that is not ok, by its name."""
    checks = shown(host)["checks"]
    return {
        check["name"]: (check["status"], check["detail"])
        for check in checks
        if check["status"] != "ok"
        # The disks and the reboots of the machine that runs the tests.
        and not check["name"].startswith("disk")
        and check["name"] != "host"
    }


def shown(host: Host) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(host.run("status", "--json").stdout)
    return shown


def test_healthy_site_is_summarized(site: Host) -> None:
    done = site.run("status")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    for port in site.ports:
        assert f"Instance {port}  ready, healthy, release second" in lines
    by = "deployed 2026-01-02T03:04:05Z by me@controller"
    assert f"Release        second, {by}" in lines
    assert f"Previous       first, {by}" in lines
    assert f"Address        https://ag-ui.example:{site.site['https_port']}, healthy" in lines
    assert "Events         7 waiting, 2 being stored, unknown open dead letters" in lines
    assert "Maintenance    off" in lines
    assert [line for line in lines if line.startswith("Certificate    until 20")]
    assert [line for line in lines if line.startswith("Disk           /: ")]


def test_json_has_state_and_checks(site: Host) -> None:
    assert problems(site) == {}
    status = shown(site)["status"]
    assert [instance["release"] for instance in status["instances"]] == ["second", "second"]
    assert (status["lag"], status["pending"], status["dead_letters"]) == (7, 2, None)
    assert (status["current"], status["previous"]) == ("second", "first")


def stop_one(host: Host) -> None:
    (host.state / host.unit(host.ports[1])).unlink()


def drain_one(host: Host) -> None:
    stop_one(host)
    (host.state / f"{host.unit(host.ports[1])}.enabled").unlink()


def disable_one(host: Host) -> None:
    (host.state / f"{host.unit(host.ports[1])}.enabled").unlink()


def leave_trial(host: Host) -> None:
    host.tried.mkdir()
    unit = host.unit(host.ports[1])
    (host.tried / unit).write_text((host.kept / unit).read_text())


def run_other_release(host: Host) -> None:
    unit = host.unit(host.ports[1])
    text = (host.etc / "releases/first/ag-ui-backend@.service").read_text()
    (host.state / unit).write_text(text)


def expire(host: Host, days: int) -> None:
    certificate = sign("ag-ui.example", hosts=["ag-ui.example"], begins=-9, ends=days)
    (host.root / "own.crt").write_text(certificate.pem)
    host.site["certificate"] = str(host.root / "own.crt")


CASES: dict[str, tuple[Callable[[Host], Any], int, str, str]] = {
    "stopped": (stop_one, 1, "instance", "is not ready (inactive): no response"),
    "drained": (drain_one, 0, "instance", "is drained and stays out"),
    "disabled": (disable_one, 1, "instance", "does not start at boot"),
    "trial": (leave_trial, 1, "trial", "is under trial, which a reboot undoes"),
    "other release": (run_other_release, 1, "instance", "runs release first and starts second"),
    "stopped nginx": (
        lambda host: (host.state / "nginx.service").unlink(),
        1,
        "nginx.service",
        "is inactive",
    ),
    "disabled target": (
        lambda host: (host.state / "ag-ui.target.enabled").unlink(),
        1,
        "ag-ui.target",
        "does not start at boot",
    ),
    "invalid nginx": (
        lambda host: host.add_program("nginx", "#!/bin/sh\necho 'unknown directive' >&2; exit 1\n"),
        1,
        "nginx configuration",
        "unknown directive",
    ),
    "not loaded": (
        lambda host: (host.root / "proxy.loaded").unlink(),
        1,
        "nginx configuration",
        "has not loaded",
    ),
    "changed file": (
        lambda host: (host.nginx / "main.conf").write_text("# by hand\n"),
        1,
        "file",
        "main.conf is not that of release second",
    ),
    "lost image": (
        lambda host: (host.state / "images").write_text("image:first\n"),
        1,
        "image",
        "image:second of release second is not on this host",
    ),
    "lost former image": (
        lambda host: (host.state / "images").write_text("image:second\n"),
        0,
        "image",
        "a rollback to it fails",
    ),
    "lock": (
        lambda host: host.lock.write_text(json.dumps({"holder": "me@controller"})),
        0,
        "lock",
        "me@controller has held the lock",
    ),
    "maintenance": (
        lambda host: host.flag.write_text("2026-01-01T00:00:00Z by me@host\n"),
        0,
        "maintenance",
        "is on since 2026-01-01T00:00:00Z by me@host",
    ),
    "clock": (
        lambda host: host.add_program("timedatectl", "#!/bin/sh\necho no\n"),
        0,
        "clock",
        "is not synchronized",
    ),
    "address": (
        lambda host: host.site.update(address="192.0.2.1"),
        1,
        "address",
        "192.0.2.1, which is no address of this host",
    ),
    "soon": (lambda host: expire(host, 5), 1, "certificate", "nginx presents another one"),
    "other name": (
        lambda host: host.site.update(server_name="other.example"),
        1,
        "proxy",
        "certificate verify failed",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_problem_is_found_and_explained(site: Host, name: str) -> None:
    change, code, check, words = CASES[name]
    change(site)
    done = site.run("status")
    assert done.returncode == code, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    [at] = [number for number, line in enumerate(lines) if check in line and words in line]
    assert lines[at].split()[0] == ("failed" if code else "warning")
    assert lines[at + 1].lstrip().startswith("→ ")


@pytest.mark.parametrize(
    ("days", "status", "detail"),
    [(-2, "failed", "expired on"), (13, "warning", "in 12 days"), (20, "ok", "")],
)
def test_expiry_of_the_certificate(site: Host, days: int, status: str, detail: str) -> None:
    expire(site, days)
    checks = [check for check in shown(site)["checks"] if check["name"] == "certificate"]
    assert checks[0]["status"] == status
    assert detail in checks[0]["detail"]
    assert checks[0]["remedy"] == ("" if status == "ok" else "Deploy: this renews it.")


def test_outage_is_reported_once_for_all_instances(site: Host) -> None:
    for port in site.ports:
        unit = site.state / site.unit(port)
        unit.write_text(f"{unit.read_text()}# degraded\n")
    found = problems(site)
    ports = ", ".join(map(str, site.ports))
    assert found["database"] == ("failed", f"connection refused (instance {ports})")
    assert "redis" not in found
    assert found["proxy"][1].endswith("/health answers 200: degraded")


def test_engine_and_systemd_that_do_not_answer_are_no_crash(site: Host) -> None:
    for program in ("systemctl", "docker"):
        site.add_program(program, "#!/bin/sh\nexit 1\n")
    done = site.run("status")
    assert done.returncode == 1
    assert "failed   docker.service: is unknown to systemd" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("metrics", "found"),
    [
        (
            {"letters": "3.0"},
            {"dead letters": ("warning", "3 entries could not be stored as events")},
        ),
        ({"lag": "1001.0"}, {"stream": ("warning", "1001 events wait to be stored")}),
        # Redis before version 7 does not tell.
        ({"lag": "NaN"}, {}),
        (
            {"lag": "NaN", "pending": "NaN"},
            {"stream": ("warning", "it is unknown how many events wait")},
        ),
    ],
)
def test_state_of_the_stream_is_judged(
    site: Host, metrics: dict[str, str], found: dict[str, tuple[str, str]]
) -> None:
    site.metrics |= metrics
    assert problems(site) == found
