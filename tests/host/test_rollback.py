"""`ag-ui rollback`: all instances run the former release, or all run the current one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.nginx import Nginx, free_port, make_folders, program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.deployed_host import Host


def links(host: Host) -> tuple[str, str]:
    """Return the current and the previous release."""
    names = [(host.etc / link).readlink().name for link in ("current", "previous")]
    return names[0], names[1]


def files(host: Host) -> dict[Path, str]:
    """Return what systemd and nginx read."""
    folders = (host.kept, host.tried, host.nginx)
    return {path: path.read_text() for folder in folders for path in folder.glob("*.*")}


def test_all_instances_go_back_one_at_a_time(site: Host) -> None:
    done = site.run("rollback")
    assert done.returncode == 0, done.stderr
    for port in site.ports:
        assert site.runs(port, "first")
        assert "/releases/first/" in (site.kept / site.unit(port)).read_text()
        assert (site.state / f"{site.unit(port)}.enabled").exists()
    assert list(site.tried.glob("*")) == []
    assert links(site) == ("first", "second")
    assert not site.lock.exists()
    former, current = site.record("second"), site.record("first")
    assert (former["outcome"], current["outcome"]) == ("rolled_back", "deployed")
    assert current["by"].endswith(f"@{os.uname().nodename}")
    restarts = [call for call in site.calls() if call.startswith("restart")]
    assert restarts == [f"restart {site.unit(port)}" for port in site.ports]
    assert done.stdout.splitlines()[-1] == "This host runs release first instead of second."
    assert site.run("status").returncode == 0
    # There and back again.
    assert site.run("rollback").returncode == 0
    assert links(site) == ("second", "first")


def test_given_release_is_chosen(site: Host) -> None:
    site.add_release("oldest")
    os.utime(site.etc / "releases/oldest/deployed", (0, 0))
    assert site.run("rollback", "oldest").returncode == 0
    assert site.runs(site.ports[0], "oldest")
    assert links(site) == ("oldest", "second")


@pytest.mark.parametrize(
    ("release", "reason"),
    [
        ("crashes", "did not become healthy: it exited, or http"),
        ("degraded", "did not become healthy: database: connection refused"),
        ("dies", "did not stay healthy: it exited 0 s after it was healthy"),
    ],
)
def test_release_that_fails_is_undone(site: Host, release: str, reason: str) -> None:
    site.add_release(release)
    before = files(site)
    done = site.run("rollback", release)
    assert done.returncode == 1
    assert f"{site.unit(site.ports[0])} {reason}" in done.stderr
    assert "Its last error: " in done.stderr
    assert f"Release {release} was undone. This host runs release second." in done.stderr
    assert files(site) == before
    for port in site.ports:
        assert site.runs(port, "second")
    assert links(site) == ("second", "first")
    assert not site.lock.exists()


def test_former_release_that_does_not_start_either_is_reported(site: Host) -> None:
    site.add_release("crashes")
    port = site.ports[0]
    unit = site.kept / site.unit(port)
    unit.write_text(f"{unit.read_text()}# crashes\n")
    done = site.run("rollback", "crashes")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"Instance {port}: Its previous release does not start either: see journalctl --unit {site.unit(port)}."
    )


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (
            "other",
            "Release other was never deployed to this host, or is no longer there. It has second, first.",
        ),
        ("first", "The image image:first of release first is no longer on this host."),
    ],
)
def test_release_that_cannot_be_started_is_refused(site: Host, wanted: str, words: str) -> None:
    (site.state / "images").write_text("image:second\n")
    before = files(site)
    done = site.run("rollback", wanted)
    assert done.returncode == 4
    assert words in done.stderr
    assert files(site) == before
    assert not site.lock.exists()


@pytest.mark.parametrize("change", [{"ports": [1, 2]}, {}])
def test_release_at_other_addresses_is_left_to_the_controller(
    site: Host, change: dict[str, object]
) -> None:
    site.write_record("first", site.record("first") | change)
    if not change:
        site.site["address"] = "127.0.0.2"
    done = site.run("rollback")
    assert done.returncode == 4
    assert "playbooks/rollback.yml -e ag_ui_release=first" in done.stderr
    assert site.runs(site.ports[0], "second")


def test_host_without_a_former_release(site: Host) -> None:
    (site.etc / "previous").unlink()
    done = site.run("rollback")
    assert done.returncode == 4
    assert "This host has no previous release to go back to." in done.stderr


def test_running_release_is_not_restarted(site: Host) -> None:
    done = site.run("rollback", "second")
    assert (done.returncode, done.stdout) == (0, "All instances run release second already.\n")
    assert not [call for call in site.calls() if call.startswith("restart")]


def test_running_deployment_is_not_disturbed(site: Host) -> None:
    site.lock.write_text(json.dumps({"run": "controller 1 now", "holder": "me@controller"}))
    done = site.run("rollback")
    assert done.returncode == 4
    assert "me@controller has had the lock" in done.stderr
    assert site.lock.exists()
    assert site.runs(site.ports[0], "second")


def test_interrupted_rollback_is_undone(site: Host) -> None:
    site.add_release("blocks")
    began = subprocess.Popen(
        site.command("rollback", "blocks"),
        env=site.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for_trial(site, began)
    began.send_signal(signal.SIGHUP)
    (site.state / "continue").touch()
    _, errors = began.communicate(timeout=60)
    assert began.returncode == 1
    assert "It was interrupted by SIGHUP." in errors
    assert "Release blocks was undone." in errors
    for port in site.ports:
        assert site.runs(port, "second")
    assert list(site.tried.glob("*")) == []
    assert not site.lock.exists()


def wait_for_trial(host: Host, process: subprocess.Popen[str]) -> None:
    """Wait until the first instance runs on trial."""
    while not host.runs(host.ports[0], "blocks"):
        assert process.poll() is None
        time.sleep(0.05)


def test_killed_rollback_is_healed_by_the_next_one(site: Host) -> None:
    site.add_release("blocks")
    began = subprocess.Popen(
        site.command("rollback", "blocks"), env=site.environment, start_new_session=True
    )
    wait_for_trial(site, began)  # type: ignore[arg-type]
    os.killpg(began.pid, signal.SIGKILL)
    began.wait()
    assert site.lock.exists()
    done = site.run("rollback", "second")
    assert done.returncode == 0, done.stderr
    for port in site.ports:
        assert site.runs(port, "second")
    assert list(site.tried.glob("*")) == []
    assert not site.lock.exists()


SITE = """# {flag}
server {{ listen 127.0.0.1:{port}; return 200 {name}; }}
"""
GET = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


@pytest.fixture
def proxied(site: Host) -> Iterator[tuple[Host, Nginx, int]]:
    """A host with a real nginx, whose site has the name of the release."""
    folder, port = site.root / "real", free_port()
    make_folders(folder)
    site.nginx = folder
    paths = {"nginx": "nginx.conf", "proxy_site": "conf.d/ag-ui.conf"}
    paths["proxy_main"] = "modules-enabled/90-ag-ui.conf"
    site.site |= {name: str(folder / path) for name, path in paths.items()}
    for name in ("first", "second"):
        text = SITE.format(flag=site.flag, port=port, name=name)
        (site.etc / f"releases/{name}/nginx-site.conf").write_text(text)
    (folder / "conf.d/ag-ui.conf").write_text(text)
    (folder / "modules-enabled/90-ag-ui.conf").write_text("# main\n")
    nginx = Nginx(folder)
    site.add_program(
        "nginx", f'#!/bin/sh\nexec {program()} -p {folder} -e {folder}/error.log "$@"\n'
    )
    with nginx:
        yield site, nginx, port


def test_proxy_goes_back_with_the_release(proxied: tuple[Host, Nginx, int]) -> None:
    host, nginx, port = proxied
    assert nginx.send(port, GET, tls=False).body == b"second"
    done = host.run("rollback")
    assert done.returncode == 0, done.stderr
    assert nginx.send(port, GET, tls=False).body == b"first"
    assert host.runs(host.ports[0], "first")
    assert (host.root / "proxy.loaded").exists()


def test_rejected_proxy_files_undo_the_rollback(proxied: tuple[Host, Nginx, int]) -> None:
    host, nginx, port = proxied
    (host.etc / "releases/first/nginx-site.conf").write_text("broken;\n")
    done = host.run("rollback")
    assert done.returncode == 1
    assert "nginx rejects the files of the release: " in done.stderr
    assert "This host runs release second." in done.stderr
    assert nginx.send(port, GET, tls=False).body == b"second"
    for instance in host.ports:
        assert host.runs(instance, "second")
    assert (host.root / "proxy.loaded").exists()
