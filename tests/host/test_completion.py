"""Completion for bash."""

from __future__ import annotations

import shlex
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.ansible_module import TOP

if TYPE_CHECKING:
    from tests.support.deployed_host import Host

FILE = TOP / "roles/ag_ui_deployment/files/host/completion.bash"


def completions(host: Host, *words: str) -> list[str]:
    """Return what bash offers for the last word."""
    script = f"""
    source {shlex.quote(str(FILE))}
    complete -p ag-ui >&2 || exit
    COMP_WORDS=({shlex.join(words)}) COMP_CWORD={len(words) - 1}
    _ag_ui
    printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        ["bash", "-euc", script],
        env={
            **host.environment,
            "AG_UI_RELEASES": str(host.etc / "releases"),
            "AG_UI_UNITS": str(host.kept),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["st"], ["status", "start"]),
        (["ma"], ["maintenance"]),
        (["maintenance", "o"], ["on", "off"]),
        (["status", "--"], ["--json"]),
        (["logs", "--f"], ["--follow"]),
        (["rollback", ""], ["first", "second"]),
        (["rollback", "f"], ["first"]),
        (["exec", ""], []),
    ],
)
def test_words_are_completed(site: Host, words: list[str], offered: list[str]) -> None:
    assert completions(site, "ag-ui", *words) == offered


@pytest.mark.parametrize("command", ["drain", "start", "undrain", "logs"])
def test_ports_are_completed(site: Host, command: str) -> None:
    offered = completions(site, "ag-ui", command, "")
    assert {str(port) for port in site.ports} <= set(offered)


def test_every_command_is_offered(site: Host) -> None:
    usage = site.run("--help").stdout
    for command in completions(site, "ag-ui", ""):
        assert command in usage
