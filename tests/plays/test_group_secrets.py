"""The hosts of a group share one set of secrets, whichever of them was deployed first."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.support.playbook import run_playbook
from tests.support.role_variables import DEFAULTS
from tests.support.site_playbook import REQUIRED_VARIABLES

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.playbook import Run

NAMES = {"jwt_secret", "mfa_key", "audit_key", "metrics_token", "admin_password", "proxy_key"}


SECRETS = {f"ag_ui_{name}" for name in NAMES}
KEPT = dict.fromkeys(NAMES, "a" * 48)
# Groups of hosts with their existing secrets; hosts in capitals are unreachable.
SITES: dict[str, dict[str, dict[str, str]]] = {
    "fresh": {"fresh-1": {}, "fresh-2": {}},
    # A new host, listed before the existing one.
    "grown": {"grown-1": {}, "grown-2": KEPT},
    "differing": {
        "differing-1": {"jwt_secret": "a" * 48},
        "differing-2": {"jwt_secret": "b" * 48},
        "differing-3": {"jwt_secret": "a" * 48},
    },
    "lost": {"lost-1": {}, "LOST-2": {}},
    "spare": {"spare-1": {}, "spare-2": KEPT, "SPARE-3": {}},
}
# The hosts to deploy to.
DEPLOYED = "fresh:grown-1:differing:lost-1:spare-1"


class Sites:
    """Groups of hosts, each host a folder of this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        groups: dict[str, Any] = {}
        for group, hosts in SITES.items():
            connections = {host: self._connection(host) for host in hosts}
            groups[group] = {"hosts": connections, "vars": {"ag_ui_group": group}}
            for host, secrets in hosts.items():
                (folder / host).mkdir()
                for name, value in secrets.items():
                    self.write(host, name, value)
        (folder / "hosts.yml").write_text(yaml.safe_dump({"all": {"children": groups}}))
        include = [
            {"name": "ag_ui_deployment", "tasks_from": name}
            for name in ("preflight_secrets", "secrets")
        ]
        tasks = [{"name": "Run it", "ansible.builtin.include_role": role} for role in include]
        play = {"hosts": "all", "gather_facts": False, "tasks": tasks}
        (folder / "play.yml").write_text(yaml.safe_dump([play]))

    @staticmethod
    def _connection(host: str) -> dict[str, Any]:
        if host.isupper():
            return {"ansible_host": "127.0.0.1", "ansible_port": 1}
        return {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}

    def deploy(self, limit: str, *options: str) -> Run:
        host = "{{ item | default(inventory_hostname) }}"
        own = {"__ag_ui_config_dir": f"{self.folder}/{host}"}
        given = {
            name: value for name, value in DEFAULTS.items() if name not in {*SECRETS, "ag_ui_group"}
        }
        return run_playbook(
            *("--inventory", str(self.folder / "hosts.yml"), "--limit", limit, *options),
            *("--extra-vars", json.dumps(given | REQUIRED_VARIABLES | own)),
            self.folder / "play.yml",
        )

    def secrets(self, host: str) -> dict[str, str]:
        paths = (self.folder / host / "secrets").glob("*")
        return {path.name: path.read_text().strip() for path in paths}

    def write(self, host: str, name: str, value: str) -> None:
        path = self.folder / host / "secrets" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(value + "\n")


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Sites:
    return Sites(tmp_path_factory.mktemp("sites"))


@pytest.fixture(scope="module")
def check_run(sites: Sites) -> Run:
    return sites.deploy("fresh", "--check")


@pytest.fixture(scope="module")
def dry_secrets(sites: Sites, check_run: Run) -> dict[str, str]:
    assert check_run.code == 0, check_run.output
    return sites.secrets("fresh-1") | sites.secrets("fresh-2")


@pytest.fixture(scope="module")
def run(sites: Sites, dry_secrets: dict[str, str]) -> Run:
    assert not dry_secrets
    return sites.deploy(DEPLOYED)


def message(run: Run, host: str) -> str:
    """Return why the deployment of a host was refused; empty if it was not."""
    return " ".join(one.result["msg"] for one in run.results if one.host == host and one.failed)


def test_check_mode_generates_no_secrets(check_run: Run, dry_secrets: dict[str, str]) -> None:
    assert dry_secrets == {}
    assert set(check_run.changes) == {"fresh-1", "fresh-2"}
    assert min(check_run.changes.values()) > 0


def test_new_hosts_share_one_set(sites: Sites, run: Run) -> None:
    assert message(run, "fresh-1") + message(run, "fresh-2") == ""
    secrets = sites.secrets("fresh-1")
    assert set(secrets) == NAMES
    assert sites.secrets("fresh-2") == secrets
    assert [value for value in secrets.values() if value in run.output] == []
    folder = sites.folder / "fresh-2/secrets"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "jwt_secret").stat().st_mode & 0o777 == 0o600


def test_added_host_gets_the_existing_set(sites: Sites, run: Run) -> None:
    assert message(run, "grown-1") == ""
    assert sites.secrets("grown-1") == sites.secrets("grown-2") == KEPT


def test_hosts_with_different_secrets_are_refused(sites: Sites, run: Run) -> None:
    for host in SITES["differing"]:
        assert "jwt_secret of differing-2 is not that of differing-1." in message(run, host)
        assert sites.secrets(host) == SITES["differing"][host]
    assert "Nothing was changed" in message(run, "differing-1")
    assert "b" * 48 not in run.output


def test_unreachable_host_without_another_copy_is_refused(sites: Sites, run: Run) -> None:
    assert "LOST-2 could not be asked and may have them" in message(run, "lost-1")
    assert sites.secrets("lost-1") == {}


def test_unreachable_host_is_ignored_if_another_has_the_set(sites: Sites, run: Run) -> None:
    assert message(run, "spare-1") == ""
    assert sites.secrets("spare-1") == KEPT


def test_deployment_succeeds_after_the_different_secret_is_removed(sites: Sites, run: Run) -> None:
    assert message(run, "differing-2")
    (sites.folder / "differing-2/secrets/jwt_secret").unlink()
    again = sites.deploy("fresh:grown:differing")
    assert again.code == 0, again.output
    changed = {host for host, count in again.changes.items() if count}
    assert changed == set(SITES["differing"])
    assert sites.secrets("differing-2") == sites.secrets("differing-1")
    assert sites.secrets("differing-2")["jwt_secret"] == "a" * 48
