"""`ag-ui recover`, which systemd runs when an instance fails under trial."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.support.deployed_host import Host


def fail_under_trial(host: Host, port: int) -> None:
    """Leave an instance failed and its unit under trial, as after a deployment that was killed."""
    host.add_release("tried")
    host.tried.mkdir()
    unit = (host.etc / "releases/tried/ag-ui-backend@.service").read_text()
    (host.tried / host.unit(port)).write_text(unit)
    (host.state / host.unit(port)).unlink(missing_ok=True)
    (host.state / f"{host.unit(port)}.failed").touch()
    host.lock.write_text(json.dumps({"holder": "me@controller", "run": "controller 1 now"}))


def test_failed_instance_runs_its_permanent_release_again(site: Host) -> None:
    port, other = site.ports
    fail_under_trial(site, port)
    done = site.run("recover", str(port))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"Instance {port}: The instance runs its previous release again.\n"
    assert site.runs(port, "second")
    assert list(site.tried.iterdir()) == []
    # The lock is that of the deployment.
    assert site.lock.exists()
    restarts = [call for call in site.calls() if call.startswith("restart")]
    assert restarts == [f"restart {site.unit(port)}"]
    assert site.runs(other, "second")


def test_instance_that_starts_on_trial_is_left_alone(site: Host) -> None:
    """Its former process failed as it was stopped."""
    port = site.ports[0]
    fail_under_trial(site, port)
    (site.state / f"{site.unit(port)}.failed").unlink()
    done = site.run("recover", str(port))
    assert (done.returncode, done.stdout) == (0, f"Instance {port}: It has not failed.\n")
    assert [path.name for path in site.tried.iterdir()] == [site.unit(port)]
    assert not [call for call in site.calls() if call.startswith(("restart", "stop"))]


def test_failed_instance_is_started_if_its_release_has_become_permanent(site: Host) -> None:
    port = site.ports[0]
    fail_under_trial(site, port)
    (site.tried / site.unit(port)).rename(site.kept / site.unit(port))
    assert site.run("recover", str(port)).returncode == 0
    assert site.runs(port, "tried")


def test_failed_instance_without_a_permanent_release_stays_stopped(site: Host) -> None:
    """Its port is new, and the description of the site does not have it yet."""
    fail_under_trial(site, 7)
    done = site.run("recover", "7")
    assert done.returncode == 0, done.stderr
    assert "The instance is stopped: it has no other release to go back to." in done.stdout
    assert list(site.tried.iterdir()) == []
    assert site.running(7) == ""
