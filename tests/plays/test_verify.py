"""The verification reports each check, and fails if one has failed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.deployed_host import deployed_host
from tests.support.playbook import run_playbook
from tests.support.role_tasks import run_role_tasks
from tests.support.site_playbook import REQUIRED_VARIABLES, inventory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.deployed_host import Host
    from tests.support.playbook import Run


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with deployed_host(tmp_path) as host:
        host.deploy_second()
        yield host


def verify(host: Host, **variables: Any) -> Run:
    """Run the tasks of the verification on this host."""
    own = {"__ag_ui_site": host.site}
    return run_role_tasks(host.root, ["verify"], own | variables, environment=host.environment)


def report(run: Run) -> list[str]:
    """Return the lines of the report."""
    [lines] = [
        one.result["msg"]
        for one in run.results
        if one.task.endswith("Verify | Report") and "msg" in one.result
    ]
    return list(lines)


def test_working_site_passes_with_a_report(host: Host) -> None:
    before = {path: path.stat().st_mtime_ns for path in host.root.rglob("*.conf")}
    run = verify(host)
    assert (run.code, run.changes) == (0, {"hx-dev-server": 0}), run.output
    lines = report(run)
    for words in (
        "ok       ag-ui.target: active and enabled",
        f"ok       instance {host.ports[0]}: ready, healthy, release second",
        "ok       redis: Redis answers all instances",
        "ok       nginx configuration: valid and loaded",
        "ok       file: units and nginx files are those of the release",
    ):
        assert words in lines
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_failed_check_fails_the_play_with_its_remedy(host: Host) -> None:
    (host.state / host.unit(host.ports[1])).unlink()
    host.flag.write_text("now\n")
    run = verify(host)
    assert run.code != 0
    assert "hx-dev-server does not work as it should:" in run.message
    assert f"failed instance {host.ports[1]}: is not ready (inactive): no response" in run.message
    assert f"→ ag-ui logs {host.ports[1]} has the cause." in run.message
    assert [
        line for line in report(run) if line.startswith("warning  maintenance: is on since now")
    ]


def test_warnings_do_not_fail_the_play(host: Host) -> None:
    host.lock.write_text("{}")
    run = verify(host)
    assert run.code == 0, run.output
    assert [line for line in report(run) if line.startswith("warning  lock: ")]


def test_deployment_reports_only_problems_and_not_its_own_lock(host: Host) -> None:
    host.lock.write_text("{}")
    (host.state / "images").write_text("image:second\n")
    run = verify(host, __ag_ui_verify_deploying=True)
    assert run.code == 0, run.output
    lines = [line for line in report(run) if line.split()[1].rstrip(":") not in {"disk", "host"}]
    assert not [line for line in lines if line.startswith("ok")]
    assert [line for line in lines if line.startswith("warning  image: ")]
    assert not [line for line in lines if "lock" in line]


def test_untrusted_certificate_fails_the_play(host: Host) -> None:
    """A client would refuse it; the authorities of the system do not include the issuer."""
    run = verify(host, __ag_ui_site={**host.site, "ca": ""})
    assert run.code != 0
    assert "certificate verify failed" in run.message


def test_playbook_refuses_wrong_variables(tmp_path: Path) -> None:
    variables = {**REQUIRED_VARIABLES, "ag_ui_https_port": "many"}
    run = run_playbook(
        *("--inventory", inventory(tmp_path, variables, None)),
        *("--extra-vars", json.dumps({"ansible_become": False}), "playbooks/verify.yml"),
    )
    assert run.code != 0
    assert "A variable of hx-dev-server is wrong" in run.message
    assert not [task for task in run.tasks if "Verify |" in task]
