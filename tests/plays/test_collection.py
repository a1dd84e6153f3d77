"""The archive of ansible-galaxy has all files of a deployment, and works by its full name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.ansible_module import run_module
from tests.support.dry_run import ROLE, BareHost, dry_run
from tests.support.playbook import TOP, run_playbook
from tests.support.role_variables import role_variables
from tests.support.site_playbook import DATASTORE_VARIABLES, REQUIRED_VARIABLES, inventory

if TYPE_CHECKING:
    from collections.abc import Mapping

NAME = "hx_citadel.shield_ag_ui"
TOOLS = Path(sys.executable).parent
# All files except those that ansible-galaxy adds.
SHIPPED = {"CHANGELOG.md", "LICENSE", "README.md", "SECURITY.md"}
SHIPPED |= {"docs", "meta", "playbooks", "plugins", "roles"}
ROLES = ["ag_ui_deployment", "shield_datastores"]


class Installed:
    """A folder with the installed collection, and an Ansible configuration without the checkout."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "ansible_collections" / NAME.replace(".", "/")
        (folder / "ansible.cfg").touch()

    @property
    def environment(self) -> Mapping[str, str]:
        return {
            "ANSIBLE_CONFIG": f"{self.folder}/ansible.cfg",
            "ANSIBLE_ROLES_PATH": f"{self.folder}/none",
            "ANSIBLE_COLLECTIONS_PATH": str(self.folder),
        }

    def galaxy(self, *arguments: str | Path) -> None:
        subprocess.run(
            [TOOLS / "ansible-galaxy", "collection", *arguments],
            cwd=self.folder,
            env={**os.environ, **self.environment},
            check=True,
            capture_output=True,
            timeout=120,
        )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    found = Installed(tmp_path_factory.mktemp("collection"))
    archives = tmp_path_factory.mktemp("archives")
    found.galaxy("build", TOP, "--output-path", archives)
    [archive] = archives.iterdir()
    found.galaxy("install", archive, "--offline", "--collections-path", found.folder)
    return found


def test_archive_has_no_development_files(installed: Installed) -> None:
    added = {"FILES.json", "MANIFEST.json"}
    assert {path.name for path in installed.path.iterdir()} == SHIPPED | added
    assert sorted(path.name for path in (installed.path / "roles").iterdir()) == ROLES
    shipped = {path.name for path in installed.path.rglob("*")}
    unwanted = {
        "tests",
        "__pycache__",
        ".mypy_cache",
        ".ruff_cache",
        ".pytest_cache",
        ".hypothesis",
    }
    assert not shipped & unwanted


def test_build_context_is_the_same_as_in_the_checkout(installed: Installed, tmp_path: Path) -> None:
    exclude = role_variables(ROLE)["__ag_ui_context_exclude"]
    roles = (ROLE, installed.path / "roles/ag_ui_deployment")
    digests = [
        run_module(
            "ag_ui_build_context",
            {"path": str(role / "files/backend"), "exclude": exclude},
            tmp_path,
            {},
        )["digest"]
        for role in roles
    ]
    assert digests[0] == digests[1]


def test_role_deploys_by_its_full_name(installed: Installed, tmp_path: Path) -> None:
    host = BareHost(tmp_path)
    before = host.files()
    role = f"{NAME}.ag_ui_deployment"
    run = dry_run(host, role, "validate", environment=installed.environment)
    assert run.code == 0, run.output
    assert f"{role} : Release | Report what a deployment would change" in run.tasks
    assert host.files() == before


@pytest.mark.parametrize(
    ("backend", "datastores", "named"),
    [
        (
            REQUIRED_VARIABLES | {"ag_ui_trusted_proxies": ["nowhere"]},
            None,
            "ag_ui_trusted_proxies",
        ),
        (
            REQUIRED_VARIABLES,
            DATASTORE_VARIABLES | {"shield_datastores_redis_password": ""},
            "_redis_password",
        ),
    ],
)
def test_playbook_of_the_collection_validates_both_roles(
    installed: Installed,
    tmp_path: Path,
    backend: dict[str, Any],
    datastores: dict[str, Any] | None,
    named: str,
) -> None:
    hosts = inventory(tmp_path, backend, datastores)
    run = run_playbook(
        *("--check", "--inventory", hosts, "--extra-vars", json.dumps({"ansible_become": False})),
        f"{NAME}.deploy",
        environment=installed.environment,
    )
    assert run.code != 0
    assert f"{NAME}." in run.tasks[-1]
    assert named in run.message
