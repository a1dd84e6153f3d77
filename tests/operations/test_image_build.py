"""What docker gets from the build of the image."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

import yaml  # type: ignore[import-untyped]

from tests.support.playbook import run_playbook

if TYPE_CHECKING:
    from pathlib import Path

PROXY = "http://user:a-password@proxy.example:3128"
INDEX = "https://user:of-the-index@index.example/simple"
# Records its arguments, and the variables that it would pass to the build.
DOCKER = """#!/bin/sh
echo "$*" >>"$STATE/arguments"
for word; do
  [ "$before" != --build-arg ] || { printf '%s=' "$word"; printenv "$word"; } >>"$STATE/variables"
  before=$word
done
"""


def build(folder: Path, **variables: Any) -> tuple[str, dict[str, str], str]:
    """Build the image with a stub of docker.

    Returns:
        The arguments of docker (empty if it was not called), the variables of the build, and the output of the playbook.
    """
    program = folder / "docker"
    program.write_text(DOCKER)
    program.chmod(0o755)
    role = {"name": "ag_ui_deployment", "tasks_from": "image_build"}
    play = {
        "hosts": "all",
        "gather_facts": False,
        "tasks": [{"name": "Build it", "ansible.builtin.include_role": role}],
    }
    (folder / "play.yml").write_text(yaml.safe_dump([play]))
    own = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "__ag_ui_state_dir": str(folder),
        "__ag_ui_preflight": {"images": [], "existing": []},
    }
    run = run_playbook(
        *("--inventory", "hx-dev-server,", "--extra-vars", json.dumps(own | variables)),
        folder / "play.yml",
        environment={"PATH": f"{folder}:{os.environ['PATH']}", "STATE": str(folder)},
    )
    assert run.code == 0, run.output
    if not (folder / "arguments").exists():
        return "", {}, run.output
    lines = (folder / "variables").read_text().splitlines()
    passed = dict(line.split("=", 1) for line in lines)
    return (folder / "arguments").read_text(), passed, run.output


def test_proxy_and_index_of_the_build_are_not_in_the_list_of_processes(tmp_path: Path) -> None:
    arguments, passed, output = build(
        tmp_path,
        ag_ui_build_http_proxy=PROXY,
        ag_ui_build_no_proxy="localhost,.example",
        ag_ui_build_index_url=INDEX,
    )
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        assert passed[name] == PROXY
    assert passed["NO_PROXY"] == passed["no_proxy"] == "localhost,.example"
    assert passed["PIP_INDEX_URL"] == INDEX
    assert "build --network host --tag shield-ag-ui-backend:" in arguments
    for text in (arguments, output):
        assert "a-password" not in text
    assert "of-the-index" not in arguments
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "arguments",
        "docker",
        "play.yml",
        "variables",
    ]


def test_proxy_does_not_change_the_name_of_the_image(tmp_path: Path) -> None:
    names = []
    for name, variables in {"one": {}, "two": {"ag_ui_build_http_proxy": PROXY}}.items():
        (tmp_path / name).mkdir()
        arguments, passed, _ = build(tmp_path / name, **variables)
        names.append(arguments.partition("--tag ")[2].split()[0])
        assert ("HTTP_PROXY" in passed) == bool(variables)
    assert names[0] == names[1]


def test_what_an_interrupted_build_has_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    image = build(tmp_path / "first")[0].partition("--tag ")[2].split()[0]
    folder = tmp_path / "second"
    folder.mkdir()
    left = [folder / "context.tar.gz", folder / "build.env"]
    for path in left:
        path.write_text("of the interrupted build")
    found = {"images": [image], "existing": [str(path) for path in left]}
    assert build(folder, __ag_ui_preflight=found)[0] == ""
    assert not any(path.exists() for path in left)
