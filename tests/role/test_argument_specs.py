"""Every variable has a default, a comment and a specification, and they agree."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.support.playbook import TOP
from tests.support.site_playbook import ROLES

if TYPE_CHECKING:
    from pathlib import Path

TYPES: dict[str, type] = {"str": str, "int": int, "bool": bool, "list": list, "dict": dict}

pytestmark = pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)


def defaults(role: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((role / "defaults/main.yml").read_text())
    return loaded


def options(role: Path) -> dict[str, Any]:
    loaded = yaml.safe_load((role / "meta/argument_specs.yml").read_text())
    found: dict[str, Any] = loaded["argument_specs"]["main"]["options"]
    return found


def comments(role: Path) -> dict[str, str]:
    """Return the comment directly above each variable."""
    text = (role / "defaults/main.yml").read_text()
    return {name: words for words, name in re.findall(r"^# (.+)\n(\w+):", text, re.MULTILINE)}


def test_defaults_and_specification_have_the_same_names(role: Path) -> None:
    assert list(defaults(role)) == list(options(role))


def test_defaults_equal_those_of_the_specification(role: Path) -> None:
    assert defaults(role) == {name: option["default"] for name, option in options(role).items()}


def test_each_default_has_its_specified_type(role: Path) -> None:
    kinds = {name: TYPES[option["type"]] for name, option in options(role).items()}
    wrong = [name for name, value in defaults(role).items() if not isinstance(value, kinds[name])]
    assert wrong == []


def test_each_default_is_one_of_the_choices(role: Path) -> None:
    limited = {name: option for name, option in options(role).items() if "choices" in option}
    defaults = {
        name: option["default"] if option["type"] == "list" else [option["default"]]
        for name, option in limited.items()
    }
    assert [name for name, o in limited.items() if set(defaults[name]) - set(o["choices"])] == []


def test_comments_equal_the_descriptions(role: Path) -> None:
    described = {name: option["description"] for name, option in options(role).items()}
    assert comments(role) == described


def test_secrets_are_not_logged_and_have_no_default(role: Path) -> None:
    secret = {name: o for name, o in options(role).items() if "(secret)" in o["description"]}
    assert secret
    assert [name for name, o in secret.items() if not o.get("no_log") or o["default"]] == []


def test_each_variable_is_used(role: Path) -> None:
    files = [path for path in role.rglob("*") if path.suffix in {".yml", ".j2"}]
    used = "".join(
        path.read_text()
        for path in files
        if {"tasks", "templates", "handlers", "vars"} & set(path.relative_to(role).parts)
    )
    # A variable that is named after a setting of the backend sets it.
    config = (TOP / "roles/ag_ui_deployment/files/backend/src/config.py").read_text()
    settings = re.findall(r"^    ([A-Z_]+): ", config, re.MULTILINE)
    unused = [name for name in defaults(role) if name not in used]
    assert [name for name in unused if name.removeprefix("ag_ui_").upper() not in settings] == []


def test_variables_have_the_prefix_of_the_role(role: Path) -> None:
    prefix = role.name.removesuffix("_deployment") + "_"
    assert [name for name in defaults(role) if not name.startswith(prefix)] == []


def test_generated_files_are_current(role: Path) -> None:
    done = subprocess.run(
        [sys.executable, TOP / "script/role-variables", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"roles/{role.name}/" not in done.stdout, "run script/role-variables"
