"""The parser of Ansible's JSON report works whatever output the user has configured."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.playbook import run_playbook

if TYPE_CHECKING:
    from pathlib import Path

PLAY = """
- hosts: all
  gather_facts: false
  connection: local
  tasks:
    - name: Change something
      ansible.builtin.debug: {msg: "{{ item }}"}
      changed_when: true
      loop: [first, second]
    - name: Fail
      ansible.builtin.fail: {msg: "the reason\\nof it"}
"""


@pytest.mark.parametrize(
    "setting", ["NO_COLOR", "ANSIBLE_NOCOLOR", "ANSIBLE_FORCE_COLOR", "PY_COLORS"]
)
def test_report_is_parsed_with_any_colour_setting(tmp_path: Path, setting: str) -> None:
    (tmp_path / "play.yml").write_text(PLAY)
    environment = {"ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default", setting: "1"}
    run = run_playbook("--inventory", "a,", tmp_path / "play.yml", environment=environment)
    assert (run.code, run.changes) == (2, {"a": 1})
    assert run.tasks == ["Change something", "Fail"]
    assert run.message.strip() == "the reason of it"
