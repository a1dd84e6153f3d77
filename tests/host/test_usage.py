"""Arguments, rights and exit codes."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.deployed_host import Host

COMMANDS = ["status", "logs", "releases", "rollback", "drain", "start", "maintenance", "exec"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "required: COMMAND"),
        (["stats"], "invalid choice: 'stats'"),
        (["drain"], "required: PORT"),
        (["drain", "one"], "invalid int value: 'one'"),
        (["maintenance", "maybe"], "invalid choice: 'maybe'"),
        (["status", "--xml"], "unrecognized arguments: --xml"),
    ],
)
def test_wrong_arguments_are_explained(site: Host, arguments: list[str], words: str) -> None:
    done = site.run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert "usage: ag-ui" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("For help: ag-ui")


@pytest.mark.parametrize("command", [["status"], ["maintenance", "on"], ["rollback"]])
def test_only_root_may_use_it(site: Host, command: list[str]) -> None:
    done = site.run(*command, user=1000)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == "ag-ui: Only root may do this. Repeat it with sudo in front.\n"
    assert not site.flag.exists()


def test_help_lists_commands_and_exit_codes(site: Host) -> None:
    done = site.run("--help", user=1000)
    assert done.returncode == 0
    assert [command for command in COMMANDS if f"    {command} " not in done.stdout] == []
    assert "5  there is no deployment on this host" in done.stdout


@pytest.mark.parametrize("text", [None, "", "[]"])
def test_host_without_a_deployment_is_named(host: Host, text: str | None) -> None:
    command = host.command("status")
    (host.root / "site.json").unlink()
    if text is not None:
        (host.root / "site.json").write_text(text)
    done = subprocess.run(
        command, env=host.environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 5
    assert "site.json is missing or damaged. Deploy to this host" in done.stderr
