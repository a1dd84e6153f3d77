"""The parsers of the command line."""

import subprocess
import sys

import pytest

from src import cli
from tests.support.cli import BACKEND

_COMMANDS = [
    "serve",
    "migrate",
    "users",
    "second-factors",
    "workspaces",
    "audit",
    "settings",
    "stream",
    "openapi",
    "permissions",
]


def test_help_names_all_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    listed = {line.split()[0] for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert listed.issuperset(_COMMANDS)


@pytest.mark.parametrize("command", _COMMANDS)
def test_each_command_has_a_parser(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        cli.main([command, "--help"])
    assert ending.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: python -m src.cli {command} ")


@pytest.mark.parametrize("module", ["fastapi", "alembic", "uvicorn"])
def test_a_command_imports_only_what_it_needs(module: str) -> None:
    program = f"import sys; from src import cli; cli.main(['settings', 'check']); sys.exit('{module}' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], cwd=BACKEND, env={}, check=False)
    assert result.returncode == 0
