"""The rotation of secrets: what it refuses, and that the hosts of a group go through its steps together."""

from __future__ import annotations

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.support.playbook import TOP, run_playbook
from tests.support.role_variables import DEFAULTS
from tests.support.site_playbook import REQUIRED_VARIABLES
from tests.support.threaded_server import serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.playbook import Run

LOCAL = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
GATEWAY_KEY = "sk-of-the-gateway"


def rotate(folder: Path, variables: dict[str, Any], *options: str | Path) -> Run:
    """Run the playbook in check mode on this machine as the only host of the group, besides one that is absent."""
    hosts = {"hx-dev-server": LOCAL, "hx-other-server": LOCAL}
    common = REQUIRED_VARIABLES | {"ag_ui_litellm_url": "http://127.0.0.1:1"}
    groups = {"ag_ui": {"hosts": hosts, "vars": common}}
    (folder / "hosts.yml").write_text(yaml.safe_dump({"all": {"children": groups}}))
    own = {"ansible_become": False, "__ag_ui_config_dir": str(folder)}
    return run_playbook(
        *("--check", "--inventory", str(folder / "hosts.yml"), *options),
        *("--extra-vars", json.dumps(own | variables)),
        "playbooks/rotate_secrets.yml",
        environment={"ANSIBLE_BECOME_ALLOW_SAME_USER": "false"},
    )


def assert_refused(run: Run, *words: str) -> None:
    assert run.code != 0, run.output
    assert [word for word in words if word not in run.message] == [], run.output
    assert "Nothing was changed" in run.message
    assert sum(run.changes.values()) == 0
    assert [task for task in run.tasks if "Generate new values" in task] == []


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({}, ["-e ag_ui_rotate=jwt,mfa", "database_owner, redis, litellm, tls"]),
        ({"ag_ui_rotate": "jwt,tokens"}, ["ag_ui_rotate (list", "Got no match for: tokens"]),
        (
            {"ag_ui_rotate": "jwt,database", "ag_ui_jwt_secret": "x" * 40},
            [
                "jwt: ag_ui_jwt_secret is set in the inventory",
                "database: set ag_ui_database_password to the new password",
            ],
        ),
        ({"ag_ui_rotate": "proxy"}, ["No release runs on hx-dev-server", "Deploy it first"]),
    ],
    ids=["nothing", "unknown", "of the inventory", "no release"],
)
def test_what_cannot_be_rotated_is_refused(
    tmp_path: Path, variables: dict[str, Any], words: list[str]
) -> None:
    run = rotate(tmp_path, variables)
    assert_refused(run, *words)
    assert "x" * 40 not in run.output


def test_part_of_a_group_is_refused(tmp_path: Path) -> None:
    run = rotate(tmp_path, {"ag_ui_rotate": "proxy"}, "--limit", "hx-dev-server")
    assert_refused(run, "hx-other-server of the group ag_ui would reject", "without --limit")


class Gateway(BaseHTTPRequestHandler):
    """Answers only requests with its key."""

    def do_GET(self) -> None:
        known = self.headers["Authorization"] == f"Bearer {GATEWAY_KEY}"
        self.send_response(200 if known and self.path == "/v1/models" else 401)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def gateway() -> Iterator[str]:
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Gateway)) as port:
        yield f"http://127.0.0.1:{port}/"


def test_key_that_the_gateway_refuses_is_not_installed(tmp_path: Path, gateway: str) -> None:
    (tmp_path / "releases").mkdir()
    (tmp_path / "current").symlink_to("releases")
    variables = {"ag_ui_rotate": "litellm", "ag_ui_litellm_api_key": "sk-wrong-key"}
    run = rotate(tmp_path, variables | {"ag_ui_litellm_url": gateway})
    assert_refused(run, f"The gateway at {gateway} does not accept ag_ui_litellm_api_key", "401")
    unreachable = rotate(tmp_path, variables)
    assert_refused(unreachable, "it cannot be reached")
    right = rotate(
        tmp_path, variables | {"ag_ui_litellm_api_key": GATEWAY_KEY, "ag_ui_litellm_url": gateway}
    )
    assert "does not accept" not in right.message
    assert "sk-" not in run.output + unreachable.output


class Group:
    """A group of hosts, each a folder of this machine, with their secrets."""

    def __init__(self, folder: Path, *hosts: str) -> None:
        self.folder = folder
        self.hosts = list(hosts)
        for host in hosts:
            (folder / host / "secrets").mkdir(parents=True)
        for name in (
            "jwt_secret",
            "mfa_key",
            "audit_key",
            "metrics_token",
            "admin_password",
            "proxy_key",
        ):
            (folder / hosts[0] / "secrets" / name).write_text(f"{name}-of-the-beginning\n")

    def run(self, *parts: tuple[str, dict[str, str]], limit: str = "all") -> Run:
        """Run parts of the role, each with its variables."""
        tasks = [
            {
                "name": name,
                "ansible.builtin.include_role": {"name": "ag_ui_deployment", "tasks_from": name},
                "vars": variables,
            }
            for name, variables in parts
        ]
        play = {"hosts": "all", "gather_facts": False, "tasks": tasks}
        (self.folder / "play.yml").write_text(yaml.safe_dump([play]))
        group = {"hosts": dict.fromkeys(self.hosts, LOCAL)}
        (self.folder / "hosts.yml").write_text(
            yaml.safe_dump({"all": {"children": {"ag_ui": group}}})
        )
        own = {
            "__ag_ui_config_dir": f"{self.folder}/{{{{ item | default(inventory_hostname) }}}}",
            "ag_ui_rotate": ["jwt", "metrics"],
        }
        run = run_playbook(
            *("--inventory", self.folder / "hosts.yml", "--limit", limit),
            *("--extra-vars", json.dumps(DEFAULTS | REQUIRED_VARIABLES | own)),
            self.folder / "play.yml",
        )
        assert run.code == 0, run.output
        return run

    def step(self, name: str) -> Run:
        """Take a step, as in a rotation that is interrupted right after it."""
        return self.run(("rotate_step", {"__ag_ui_rotation_step": name}))

    def deploy(self, limit: str = "all") -> Run:
        """Run the part of a deployment that distributes the secrets."""
        return self.run(("preflight_secrets", {}), ("secrets", {}), limit=limit)

    def value(self, host: str, name: str = "jwt_secret") -> str:
        return (self.folder / host / "secrets" / name).read_text().strip()

    def state(self, host: str) -> dict[str, Any]:
        path = self.folder / host / "secrets/rotation.json"
        state: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        return state


# Eleven runs of Ansible.
@pytest.mark.timeout(900)
def test_hosts_of_a_group_rotate_together_over_interruptions(tmp_path: Path) -> None:
    group = Group(tmp_path, "one", "two")
    group.deploy()
    begun = group.step("begin")
    state = group.state("one")
    assert set(state) == {"jwt_secret", "metrics_token"}
    new = state["jwt_secret"]["accepted"][0]["value"]
    # A repeated step and a deployment in the middle keep the new value and the overlap.
    group.step("begin")
    group.deploy()
    assert group.state("one") == group.state("two") == state
    assert group.value("one") == group.value("two") == "jwt_secret-of-the-beginning"
    used = group.step("use")
    assert group.state("two") == state
    # A deployment to the other host and to one that is added, which is the first of the group from then on.
    group.hosts.append("added")
    (tmp_path / "added").mkdir()
    group.deploy(limit="two,added")
    assert group.state("two") == group.state("added") == group.state("one")
    assert group.value("two") == group.value("added") == new
    group.deploy()
    assert {group.value(host) for host in group.hosts} == {new}
    confirmed = group.step("confirm")
    group.deploy()
    last = group.state("one")["jwt_secret"]
    assert (last["value"], last["accepted"][0]["value"]) == (new, "jwt_secret-of-the-beginning")
    assert last["accepted"][0]["until"] > 0
    # Nothing is removed before its time, and nothing else changes.
    group.step("finish")
    assert {str(group.state(host)) for host in group.hosts} == {str(group.state("one"))}
    assert group.state("added")["jwt_secret"] == last
    assert group.value("one", "mfa_key") == "mfa_key-of-the-beginning"
    for run in (begun, used, confirmed):
        assert new not in run.output


# In place of the tasks of a deployment: the secrets of the group, and the environment of the backend.
RELEASE = [
    {
        "name": "Set the facts",
        "ansible.builtin.set_fact": {"__ag_ui_preflight": {"nginx": "1.22.1"}},
    },
    {"name": "Secrets", "ansible.builtin.import_tasks": "preflight_secrets.yml"},
    {"name": "Secrets", "ansible.builtin.import_tasks": "secrets.yml"},
    {
        "name": "Set the image",
        "ansible.builtin.set_fact": {"__ag_ui_gid": 1001, "__ag_ui_image": "image:1"},
    },
    {
        "name": "Set the release",
        "ansible.builtin.set_fact": {"__ag_ui_release": "{{ __ag_ui_release_name }}"},
    },
    {
        "name": "Fail where the test says so",
        "ansible.builtin.assert": {"that": "not ('/fail-' ~ inventory_hostname) is exists"},
    },
    {
        "name": "Write the environment",
        "ansible.builtin.template": {
            "src": "backend.env.j2",
            "dest": "{{ __ag_ui_config_dir }}/releases/{{ __ag_ui_release }}",
        },
    },
    {
        "name": "Append to the list of releases",
        "ansible.builtin.shell": "echo {{ __ag_ui_release }} >>{{ __ag_ui_config_dir }}/released",
    },
]
DOCKER = """#!/bin/sh
echo "$*" >>{folder}/docker.log
"""


class Deployed(Group):
    """A group whose hosts run a release. The role has RELEASE in place of its deployment."""

    def __init__(self, folder: Path, *hosts: str) -> None:
        super().__init__(folder, *hosts)
        for host in hosts:
            (folder / host / "releases").mkdir()
            (folder / host / "current").symlink_to("releases")
        source, role = TOP / "roles/ag_ui_deployment", folder / "roles/ag_ui_deployment"
        (role / "tasks").mkdir(parents=True)
        for path in source.iterdir():
            if path.name != "tasks":
                (role / path.name).symlink_to(path)
        for path in (source / "tasks").glob("*.yml"):
            if path.name != "main.yml":
                (role / "tasks" / path.name).symlink_to(path)
        tasks = yaml.safe_dump(RELEASE).replace("('/fail-'", f"('{folder}/fail-'")
        (role / "tasks/main.yml").write_text(tasks)
        (folder / "bin").mkdir()
        (folder / "bin/docker").write_text(DOCKER.format(folder=folder))
        (folder / "bin/docker").chmod(0o755)
        group = {"hosts": dict.fromkeys(hosts, LOCAL), "vars": REQUIRED_VARIABLES}
        (folder / "hosts.yml").write_text(yaml.safe_dump({"all": {"children": {"ag_ui": group}}}))

    def rotate(self, **variables: object) -> Run:
        own = {
            "ansible_become": False,
            "__ag_ui_config_dir": f"{self.folder}/{{{{ item | default(inventory_hostname) }}}}",
        }
        return run_playbook(
            *("--inventory", str(self.folder / "hosts.yml")),
            *("--extra-vars", json.dumps(own | variables)),
            "playbooks/rotate_secrets.yml",
            environment={
                "ANSIBLE_ROLES_PATH": str(self.folder / "roles"),
                "PATH": f"{self.folder}/bin:{os.environ['PATH']}",
            },
            timeout=280,
        )

    def releases(self, host: str) -> list[dict[str, str]]:
        """Return the settings of the releases of a host, in their order."""
        path = self.folder / host / "released"
        names = path.read_text().split() if path.exists() else []
        texts = [(self.folder / host / "releases" / name).read_text() for name in names]
        return [
            {
                name: value.strip("'")
                for name, _, value in (line.partition("=") for line in text.splitlines())
            }
            for text in texts
        ]


# Three runs of the playbook.
@pytest.mark.timeout(900)
def test_playbook_releases_both_phases_and_goes_on_after_an_interruption(tmp_path: Path) -> None:
    group = Deployed(tmp_path, "one", "two")
    (tmp_path / "fail-two").touch()
    interrupted = group.rotate(ag_ui_rotate="jwt,mfa")
    assert interrupted.code != 0
    # No instance signs with the new key before all accept it.
    assert group.state("one")["jwt_secret"]["phase"] == "accept"
    (tmp_path / "fail-two").unlink()
    done = group.rotate(ag_ui_rotate="jwt,mfa")
    assert done.code == 0, done.output
    old = "jwt_secret-of-the-beginning"
    for host in ("one", "two"):
        accepting, using = group.releases(host)
        new = using["JWT_SECRET"]
        assert (accepting["JWT_SECRET"], accepting["JWT_PREVIOUS_SECRETS"]) == (old, new)
        assert (using["JWT_PREVIOUS_SECRETS"], group.value(host)) == (old, new)
        assert using["AUDIT_KEY"] == "audit_key-of-the-beginning"
    assert group.state("one") == group.state("two")
    assert group.state("one")["mfa_key"]["accepted"][0]["until"] > 0
    [resealed] = (tmp_path / "docker.log").read_text().splitlines()
    assert resealed.endswith("image:1 python -m src.cli second-factors reseal")
    assert "jwt: the new value is in use. The former one is accepted until" in done.output
    assert new not in done.output

    finished = group.rotate(ag_ui_rotate_finish=True, ag_ui_rotate_early=True)
    assert finished.code == 0, finished.output
    last = group.releases("two")[-1]
    assert last["JWT_SECRET"] == new
    assert [name for name in last if "_PREVIOUS_" in name] == []
