"""What an operator does on the host: the command ag-ui, maintenance, and the verification."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.scenarios.support.deployment import deploy, run
from tests.scenarios.support.http import EventStream, read_to_end, request
from tests.scenarios.support.request_load import RequestLoad
from tests.scenarios.support.site import RESTART_LIMIT
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.scenarios.support.http import Answer
    from tests.scenarios.support.site import Account, Site
    from tests.support.playbook import Run

# Seconds for a command that waits for an instance to stop or to become healthy.
COMMAND_LIMIT = 180
VERIFICATION = "playbooks/verify.yml"
# Checks of the machine that runs the tests, of what other tests have published, and of a simulated server.
OTHER_CHECKS = ("disk", "clock", "host", "stream", "dead letters", "orchestrator")


def ag_ui(site: Site, *arguments: str, send: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command on the dev server."""
    return subprocess.run(
        ["docker", "exec", "-i", site.dev.name, "/usr/local/sbin/ag-ui", *arguments],
        input=send,
        capture_output=True,
        text=True,
        check=False,
        timeout=COMMAND_LIMIT,
    )


def succeeded(site: Site, *arguments: str, send: str | None = None) -> str:
    """Run the command, which must succeed; return its output."""
    done = ag_ui(site, *arguments, send=send)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def problems(site: Site) -> dict[str, str]:
    """Return the status of each check that is not ok, except OTHER_CHECKS."""
    checks = json.loads(ag_ui(site, "status", "--json").stdout)["checks"]
    return {
        check["name"]: check["status"]
        for check in checks
        if check["status"] != "ok" and not check["name"].startswith(OTHER_CHECKS)
    }


@pytest.fixture(autouse=True)
def as_before(site: Site) -> Iterator[None]:
    """End maintenance and start all instances after each test."""
    yield
    succeeded(site, "maintenance", "off")
    for port in site.ports:
        succeeded(site, "start", str(port))
    site.wait_until_healthy()


def test_status_finds_no_problems(site: Site) -> None:
    assert problems(site) == {}
    shown = succeeded(site, "status")
    [current] = {
        site.inspect(name)["Config"]["Labels"]["ag-ui.release"] for name in site.containers()
    }
    for port in site.ports:
        assert f"Instance {port}  ready, healthy, release {current}" in shown
    assert f"Release        {current}, deployed 20" in shown
    assert " open dead letters" in shown
    assert "unknown open dead letters" not in shown
    for secret in site.secrets.values():
        assert secret not in shown + ag_ui(site, "status", "--json").stdout


def test_only_root_may_use_the_command(site: Site) -> None:
    done = subprocess.run(
        ["docker", "exec", "--user", "nobody", site.dev.name, "/usr/local/sbin/ag-ui", "status"],
        capture_output=True,
        text=True,
        check=False,
        timeout=COMMAND_LIMIT,
    )
    assert done.returncode == 3
    assert "Repeat it with sudo in front." in done.stderr


def test_releases_and_logs_are_shown(site: Site) -> None:
    listed = json.loads(succeeded(site, "releases", "--json"))
    assert [release["outcome"] for release in listed if release["link"] == "current"] == [
        "deployed"
    ]
    port = site.ports[0]
    site.dev.systemctl("restart", site.unit(port))
    assert '"event":"backend_started"' in succeeded(site, "logs", str(port), "--since", "-2min")


def test_exec_runs_the_command_line_of_the_backend(site: Site, admin: Account) -> None:
    assert admin.email in succeeded(site, "exec", "users", "list")
    done = ag_ui(site, "exec", "users", "role", "nobody@example.com", "viewer")
    assert done.returncode == 6


def test_drained_instance_stays_out_over_a_reboot_and_fails_no_request(
    site: Site, user: Account
) -> None:
    port, other = site.ports
    with RequestLoad(site.proxy, "/auth/me", user.token) as load:
        succeeded(site, "drain", str(port))
    assert load.failed == []
    assert load.answered > 0
    assert problems(site) == {f"instance {port}": "warning"}
    refused = ag_ui(site, "drain", str(other))
    assert refused.returncode == 4
    assert "No other instance of this host is ready" in refused.stderr
    subprocess.run(["docker", "restart", "--time", "30", site.dev.name], check=True, timeout=120)
    eventually(
        lambda: site.is_ready(other) and site.health(),
        "the other instance, through the proxy",
        within=2 * RESTART_LIMIT,
        ignoring=(OSError,),
    )
    assert not site.is_ready(port)
    assert not site.dev.is_active(site.unit(port))
    with RequestLoad(site.proxy, "/auth/me", user.token) as load:
        succeeded(site, "start", str(port))
    assert load.failed == []
    assert site.is_ready(port)


def ask(site: Site, path: str, accept: str = "*/*") -> Answer:
    return request(site.proxy, "GET", path, headers={"Accept": accept})


def test_maintenance_ends_streams_and_survives_a_deployment(
    site: Site, inventory: str, user: Account
) -> None:
    with EventStream(site.proxy, "/events", user.token) as stream:
        succeeded(site, "maintenance", "on")
        read_to_end(stream, within=10)
        comments = [comment for frame in stream.frames for comment in frame.comments]
        assert "maintenance: reconnect with the last id" in comments
        assert (stream.frames[-1].retry or 0) >= 30_000
    assert_closed(site)
    assert site.is_healthy()
    site.dev.systemctl("reload", "nginx.service")
    assert_closed(site)
    done = deploy(inventory)
    assert done.code == 0, done.output
    assert_closed(site)
    assert problems(site) == {"maintenance": "warning"}
    succeeded(site, "maintenance", "off")
    assert ask(site, "/docs").status == 200
    with EventStream(site.proxy, "/events", user.token):
        pass


def assert_closed(site: Site) -> None:
    """Check what clients get during maintenance."""
    for _ in range(4):
        answer = ask(site, "/events")
        assert (answer.status, answer.json()["type"]) == (
            503,
            "urn:shield-ag-ui:problem:maintenance",
        )
        assert answer.headers["retry-after"] == "60"
    page = ask(site, "/docs", "text/html")
    assert (page.status, page.headers["content-type"]) == (503, "text/html; charset=utf-8")
    assert ask(site, "/health").status == 200


def test_rollback_and_back_again(site: Site, inventory: str, user: Account) -> None:
    [former] = releases(site)
    done = deploy(inventory, {"ag_ui_log_level": "WARNING"}, tags="config")
    assert done.code == 0, done.output
    [changed] = releases(site)
    assert changed != former
    try:
        with RequestLoad(site.proxy, "/auth/me", user.token) as load:
            shown = succeeded(site, "rollback")
        assert load.failed == []
        assert f"This host runs release {former} instead of {changed}." in shown
        assert releases(site) == {former}
        assert problems(site) == {}
        outcomes = {
            release["release"]: release["outcome"]
            for release in json.loads(succeeded(site, "releases", "--json"))
        }
        assert outcomes[changed] == "rolled_back"
        refused = ag_ui(site, "rollback", "0000000000000000")
        assert refused.returncode == 4
    finally:
        done = deploy(inventory)
    assert done.code == 0, done.output
    assert releases(site) == {former}


def releases(site: Site) -> set[str]:
    """Return the releases of the running containers."""
    return {
        str(site.inspect(name)["Config"]["Labels"]["ag-ui.release"]) for name in site.containers()
    }


def test_verification_passes_and_changes_nothing(site: Site, inventory: str) -> None:
    done = run(inventory, VERIFICATION)
    assert done.code == 0, done.output
    assert set(done.changes.values()) == {0}
    assert f"ok       instance {site.ports[0]}: ready" in json.dumps(reported(done))


def reported(run: Run) -> list[Any]:
    return [one.result.get("msg") for one in run.results if one.task.endswith("Verify | Report")]


@pytest.mark.parametrize("fault", ["stopped instance", "changed file", "leftover trial"])
def test_verification_names_what_is_broken(site: Site, inventory: str, fault: str) -> None:
    port = site.ports[-1]
    permanent = f"/etc/systemd/system/{site.unit(port)}"
    trials = "/run/systemd/system.control"
    if fault == "stopped instance":
        site.dev.systemctl("stop", site.unit(port))
        words = f"failed instance {port}: is not ready (inactive)"
        undo = f"systemctl start {site.unit(port)}"
    elif fault == "changed file":
        site.dev.run("sh", "-c", f"echo '# by hand' >>{permanent}")
        words = f"failed file: {permanent} is not that of release"
        undo = f"sed -i '$d' {permanent} && systemctl daemon-reload"
    else:
        site.dev.run("sh", "-c", f"mkdir -p {trials} && cp {permanent} {trials}")
        words = f"failed trial: {site.unit(port)} is under trial"
        undo = f"rm {trials}/{site.unit(port)} && systemctl daemon-reload"
    try:
        done = run(inventory, VERIFICATION)
    finally:
        site.dev.run("sh", "-c", undo)
    assert done.code != 0
    assert words in done.message


def test_units_are_confined(site: Site) -> None:
    for port in site.ports:
        site.dev.run(
            *("systemd-analyze", "security", "--threshold=30", "--no-pager", site.unit(port))
        )


def test_upgrade_of_nginx_fails_no_request(site: Site, user: Account) -> None:
    """What the package does when unattended-upgrades installs a new version."""
    with RequestLoad(site.proxy, "/auth/me", user.token) as load:
        site.dev.run("invoke-rc.d", "nginx", "upgrade")
    assert load.failed == []
    assert problems(site) == {}
