"""`ag-ui drain`, `start`, `logs` and `exec`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.deployed_host import Host


def test_drained_instance_stays_out_until_it_is_started(site: Host) -> None:
    port, other = site.ports
    done = site.run("drain", str(port))
    assert done.returncode == 0, done.stderr
    assert f"stays out until: ag-ui start {port}" in done.stdout
    assert (site.running(port), bool(site.running(other))) == ("", True)
    # A reboot meanwhile must not start it.
    calls = [call for call in site.calls() if site.unit(port) in call]
    assert calls.index(f"disable --quiet {site.unit(port)}") < calls.index(
        f"stop {site.unit(port)}"
    )
    assert not (site.state / f"{site.unit(port)}.enabled").exists()
    done = site.run("start", str(port))
    assert (done.returncode, done.stdout) == (0, f"Instance {port} is ready and healthy.\n")
    assert site.runs(port, "second")
    assert (site.state / f"{site.unit(port)}.enabled").exists()


def test_last_instance_is_drained_only_by_force(site: Host) -> None:
    first, second = map(str, site.ports)
    assert site.run("drain", first).returncode == 0
    done = site.run("drain", second)
    assert done.returncode == 4
    assert "No other instance of this host is ready" in done.stderr
    assert "--force" in done.stderr
    assert site.running(int(second))
    assert site.run("drain", second, "--force").returncode == 0
    assert not site.running(int(second))
    assert site.run("undrain", second).returncode == 0


def test_missing_instance_does_not_count_as_another_one(site: Host) -> None:
    port, other = site.ports
    (site.state / site.unit(other)).unlink()
    (site.kept / site.unit(other)).unlink()
    done = site.run("drain", str(port))
    assert done.returncode == 4
    assert "No other instance of this host is ready" in done.stderr


@pytest.mark.parametrize("command", ["drain", "start", "logs"])
def test_unknown_port_is_refused_with_the_known_ones(site: Host, command: str) -> None:
    done = site.run(command, "7")
    assert done.returncode == 4
    assert f"Choose one of {site.ports[0]}, {site.ports[1]}." in done.stderr


@pytest.mark.parametrize("command", ["drain", "start"])
def test_running_deployment_is_not_disturbed(site: Host, command: str) -> None:
    site.lock.write_text(
        json.dumps({"holder": "me@controller", "since": "now", "purpose": "deployment"})
    )
    done = site.run(command, str(site.ports[0]))
    assert done.returncode == 4
    assert "me@controller has had the lock of this host since now, for a deployment" in done.stderr
    assert site.running(site.ports[0])


@pytest.mark.parametrize(
    ("release", "reason"),
    [("crashes", "it does not start"), ("degraded", "database: connection refused")],
)
def test_instance_that_does_not_start_is_reported_with_its_last_error(
    host: Host, release: str, reason: str
) -> None:
    host.add_release(release)
    host.deploy(release)
    host.add_program("journalctl", "#!/bin/sh\necho 'RuntimeError: no key'\n")
    done = host.run("start", str(host.ports[0]))
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"ag-ui: Instance {host.ports[0]} is not healthy: {reason}",
        "Its last error: RuntimeError: no key",
        f"It stays enabled, and systemd tries again. For details: ag-ui logs {host.ports[0]}",
    ]


def test_instance_without_a_unit_is_refused(host: Host) -> None:
    done = host.run("start", str(host.ports[0]))
    assert done.returncode == 4
    assert "is not installed. Deploy to this host." in done.stderr


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        ([], "--unit=ag-ui-backend@*.service --no-hostname --lines=100 --no-pager"),
        (["--lines", "5"], "--unit=ag-ui-backend@*.service --no-hostname --lines=5 --no-pager"),
        (["--follow"], "--unit=ag-ui-backend@*.service --no-hostname --lines=100 --follow"),
        (
            ["--since", "-1h"],
            "--unit=ag-ui-backend@*.service --no-hostname --no-pager --since=-1h",
        ),
        (
            ["--since", "1 hour ago"],
            "--unit=ag-ui-backend@*.service --no-hostname --no-pager --since=1 hour ago",
        ),
    ],
)
def test_logs_are_those_of_journald(site: Host, arguments: list[str], command: str) -> None:
    assert site.run("logs", *arguments).stdout == f"journalctl {command}\n"


def test_log_of_one_instance(site: Host) -> None:
    port = site.ports[1]
    assert f"--unit=ag-ui-backend@{port}.service " in site.run("logs", str(port)).stdout


def test_exec_runs_a_command_of_the_backend_with_its_exit_code(site: Host) -> None:
    done = site.run("exec", "users", "list", "--search", "a b")
    assert done.returncode == 0
    first = f"ag-ui-backend-{site.ports[0]}"
    command = "python -m src.cli users list --search a b"
    assert site.calls("docker")[-1] == f"exec --interactive {first} {command}"
    (site.state / site.unit(site.ports[0])).unlink()
    docker = (site.root / "bin/docker").read_text()
    site.add_program(
        "docker", docker.replace("#!/bin/sh\n", '#!/bin/sh\ntest "$1" = exec && exit 6\n')
    )
    assert site.run("exec", "users", "list").returncode == 6


def test_exec_without_a_running_instance_runs_the_current_release(site: Host) -> None:
    for port in site.ports:
        (site.state / site.unit(port)).unlink()
    assert site.run("exec", "stream", "resume").returncode == 0
    call = site.calls("docker")[-1].split()
    assert call[:3] == ["run", "--rm", "--interactive"]
    assert f"--volume={site.etc}/current/backend.env:/app/.env:ro" in call
    assert call[-6:] == ["image:second", "python", "-m", "src.cli", "stream", "resume"]


def test_exec_without_instance_and_release_is_refused(site: Host) -> None:
    for port in site.ports:
        (site.state / site.unit(port)).unlink()
    (site.etc / "current").unlink()
    done = site.run("exec", "users", "list")
    assert done.returncode == 4
    assert "No instance runs, and this host has no release. Deploy to it." in done.stderr
