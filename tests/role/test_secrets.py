"""No secret appears on a command line of the host or in its journal."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.support.playbook import TOP
from tests.support.role_variables import role_variables, variable_files
from tests.support.site_playbook import DATASTORE_VARIABLES, ROLES

if TYPE_CHECKING:
    from collections.abc import Iterator

Task = dict[str, Any]

FILES = sorted(
    path
    for pattern in ("roles/*/tasks/*.yml", "roles/*/handlers/*.yml", "playbooks/*.yml")
    for path in TOP.glob(pattern)
) + sorted((TOP / "molecule/shared").glob("*.yml"))
# Actions that run on the controller and send nothing to the host.
CONTROLLER = {
    f"ansible.builtin.{name}"
    for name in (
        "assert",
        "debug",
        "fail",
        "import_tasks",
        "include_role",
        "include_tasks",
        "set_fact",
    )
}
# Modules that declare their secret arguments.
DECLARING = {
    f"hx_citadel.shield_ag_ui.ag_ui_{name}"
    for name in ("preflight", "database_password", "redis_password")
}
COMMANDS = {f"ansible.builtin.{name}" for name in ("command", "shell", "raw", "script")}


def named_like_a_secret(name: str) -> bool:
    return re.fullmatch(r"(vault_\w+|\w*_(passwords?|secrets?|api_key|token))", name) is not None


def names_in(value: object) -> set[str]:
    """Return all possible variable names in a value, at any depth."""
    return set(re.findall(r"\b[a-z_][a-z0-9_]*\b", yaml.safe_dump(value)))


def secret_variables() -> set[str]:
    """Return the secrets that the roles declare, and all variables derived from them."""
    specified: set[str] = set()
    references: dict[str, set[str]] = {}
    for role in ROLES:
        options = yaml.safe_load((role / "meta/argument_specs.yml").read_text())
        options = options["argument_specs"]["main"]["options"]
        specified |= {name for name, option in options.items() if option.get("no_log")}
        references |= {name: names_in(value) for name, value in role_variables(role).items()}
    found = set(specified)
    while more := {name for name, parts in references.items() if parts & found} - found:
        found |= more
    return found


SECRET = secret_variables()


def secrets_in(value: object) -> set[str]:
    return {name for name in names_in(value) if name in SECRET or named_like_a_secret(name)}


def tasks_of(found: object) -> Iterator[Task]:
    """Yield the tasks of a file, a play or a block, at any depth."""
    for entry in found if isinstance(found, list) else []:
        parts = [entry[key] for key in ("tasks", "block", "rescue", "always") if key in entry]
        for part in parts:
            yield from tasks_of(part)
        if not parts and "hosts" not in entry:
            yield entry


def module_of(task: Task) -> str:
    [name] = [key for key in task if "." in key]
    return name


def secrets_on_command_line(task: Task) -> set[str]:
    """Return the secrets in the environment or the command of a task."""
    command = task[module_of(task)] if module_of(task) in COMMANDS else None
    if isinstance(command, dict):
        command = {key: value for key, value in command.items() if key != "stdin"}
    return secrets_in([task.get("environment"), command])


def secrets_in_journal(task: Task) -> set[str]:
    """Return the secrets in arguments that a module logs to the host's journal."""
    module = module_of(task)
    if task.get("no_log") is True or module in CONTROLLER | DECLARING:
        return set()
    return secrets_in(task[module])


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(TOP)))
def test_no_task_exposes_a_secret(path: Path) -> None:
    tasks = list(tasks_of(yaml.safe_load(path.read_text())))
    on_command_lines = {task.get("name"): secrets_on_command_line(task) for task in tasks}
    in_journals = {task.get("name"): secrets_in_journal(task) for task in tasks}
    assert {name: found for name, found in on_command_lines.items() if found} == {}
    assert {name: found for name, found in in_journals.items() if found} == {}


def test_variables_derived_from_secrets_are_secret() -> None:
    assert {"ag_ui_redis_password", "__ag_ui_jwt_secret", "__ag_ui_preflight_redis"} <= SECRET
    assert not SECRET & {"ag_ui_redis_host", "__ag_ui_image_name", "__ag_ui_run"}


@pytest.mark.parametrize(
    "task",
    [
        {"a.b.c": {}, "environment": {"X": "{{ shield_datastores_database_password }}"}},
        {"a.b.c": {}, "environment": {"X": "{{ __shield_datastores_passwords[item] }}"}},
        {"ansible.builtin.command": {"argv": ["a", "{{ ag_ui_litellm_api_key }}"]}},
        {"ansible.builtin.command": "a {{ vault_a_password }}"},
        {
            "ansible.builtin.shell": {"cmd": "a {{ __ag_ui_admin_password | quote }}"},
            "no_log": True,
        },
    ],
)
def test_secret_on_a_command_line_is_detected(task: Task) -> None:
    [found] = tasks_of([{"block": [{"name": "X | Y"} | task]}])
    assert secrets_on_command_line(found)


def test_secret_in_the_journal_is_detected() -> None:
    task = {"ansible.builtin.command": {"argv": ["a"], "stdin": "{{ ag_ui_redis_password }}"}}
    assert secrets_in_journal(task)
    assert not secrets_on_command_line(task)
    assert not secrets_in_journal(task | {"no_log": True})


# Records its arguments, user and password, and succeeds.
PSQL = """#!/bin/sh
printf '%s|%s|%s\\n' "$PGUSER" "$PGPASSWORD" "$*" >>"$(dirname "$0")/asked"
tr '\\0' ' ' </proc/$$/cmdline >>"$(dirname "$0")/arguments"
"""


def test_login_tasks_use_the_passwords_without_exposing_them(tmp_path: Path) -> None:
    """Runs the login task of shield_datastores with a stub psql and unusual passwords."""
    role = TOP / "roles/shield_datastores"
    tasks = yaml.safe_load((role / "tasks/postgresql.yml").read_text())
    logins = [task for task in tasks if "Log in" in task["name"]]
    passwords = {
        "owner": "of-'the'-owner-\\n$HOME",
        "user": "`of`-the-$(user)-\u00fc#%",
        "backup": 'of"the\\backup-$$',
    }
    defaults = yaml.safe_load((role / "defaults/main.yml").read_text()) | DATASTORE_VARIABLES
    defaults |= {
        "ansible_python_interpreter": sys.executable,
        "shield_datastores_database_owner_password": passwords["owner"],
        "shield_datastores_database_password": passwords["user"],
        "shield_datastores_database_backup_password": passwords["backup"],
        "__shield_datastores_has_backup": True,
    }
    play = {"hosts": "localhost", "connection": "local", "gather_facts": False}
    play |= {"tasks": logins, "vars": defaults, "vars_files": list(map(str, variable_files(role)))}
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
    psql = tmp_path / "psql"
    psql.write_text(PSQL)
    psql.chmod(0o755)
    tools = Path(sys.executable).parent
    done = subprocess.run(
        ["ansible-playbook", "-vvv", "--inventory", "localhost,", tmp_path / "play.yml"],
        env=os.environ
        | {"ANSIBLE_CONFIG": str(TOP / "ansible.cfg"), "LC_ALL": "C.UTF-8"}
        | {"PATH": f"{tmp_path}:{tools}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    used_logins = [line.split("|") for line in (tmp_path / "asked").read_text().splitlines()]
    assert [(user, password) for user, password, _ in used_logins] == [
        ("shield_owner", passwords["owner"]),
        ("shield", passwords["user"]),
        ("shield_backup", passwords["backup"]),
    ]
    output = done.stdout + done.stderr + (tmp_path / "arguments").read_text()
    assert "psql --no-psqlrc" in output
    for password in passwords.values():
        assert password not in output
        assert json.dumps(password)[1:-1] not in output
