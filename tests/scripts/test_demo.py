"""script/demo when no demo exists, and the programs that it runs on this machine."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml  # type: ignore[import-untyped]

from tests.scripts.conftest import REPOSITORY

if TYPE_CHECKING:
    from tests.scripts.conftest import Checkout

OBSERVABILITY = "roles/ag_ui_deployment/files/observability"
# Stands for the engine, the dev server and its instances.
PROGRAMS = {
    "ansible": """for last; do :; done; echo "host | SUCCESS => {\\"${last#var=}\\": \\"value\\"}" """,
    "ansible-playbook": "echo 'PLAY RECAP'",
    "docker": """case "$*" in *METRICS_TOKEN*) echo "'a-token'" ;; *server.crt) echo certificate ;; esac""",
    "curl": """case "$*" in
      */health) echo '"status": "healthy"' ;;
      */auth/token) echo '{"access_token": "token"}' ;;
      */api/tools) echo crawl_web ;;
      */events) yes data: | head -n 6 ;;
      */api/v1/query) echo '"2"' ;;
    esac""",
    "prometheus": """echo "$@" >arguments; exec bash -c 'exec -a "$0" sleep 60' "prometheus $*" """,
}
PYTHON = f"""#!/bin/sh
case "$*" in *tests.shield*) echo job 1; exec bash -c 'exec -a tests.shield sleep 60' ;; esac
exec {sys.executable} "$@"
"""
NAMES = ("simulator", "prometheus")


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.fixture
def deployed(checkout: Checkout) -> Checkout:
    """A checkout whose deployments succeed."""
    checkout.replace_script("bootstrap", "mkdir -p .cache")
    for name, body in PROGRAMS.items():
        checkout.stub(name, body)
    python = checkout.path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(PYTHON)
    python.chmod(0o755)
    shutil.copytree(REPOSITORY / OBSERVABILITY, checkout.path / OBSERVABILITY)
    return checkout


@pytest.mark.parametrize("command", ["env", "status"])
def test_commands_without_a_demo_name_the_remedy(checkout: Checkout, command: str) -> None:
    done = checkout.run("script/demo", command)
    assert done.returncode == 1
    assert "Make one with: script/demo" in done.stderr
    assert not done.stdout


def test_env_prints_the_file_of_the_last_run(checkout: Checkout) -> None:
    (checkout.path / ".demo").mkdir()
    (checkout.path / ".demo" / "env").write_text("AG_UI_URL='https://a'\nexport AG_UI_URL\n")
    done = checkout.run("sh", "-c", 'eval "$(script/demo env)" && sh -c \'echo "$AG_UI_URL"\'')
    assert done.stdout == "https://a\n"


def test_down_without_a_demo_succeeds(checkout: Checkout) -> None:
    checkout.stub("docker", "exit 1")
    done = checkout.run("script/demo", "down")
    assert done.returncode == 0


def test_down_keeps_the_state_while_the_engine_does_not_answer(checkout: Checkout) -> None:
    checkout.stub("docker", "exit 1")
    (checkout.path / ".demo").mkdir()
    done = checkout.run("script/demo", "down")
    assert done.returncode == 1
    assert "engine does not answer" in done.stderr
    assert (checkout.path / ".demo").exists()


def test_monitoring_uses_the_files_of_the_role(deployed: Checkout) -> None:
    done = deployed.run("script/demo", "--with-monitoring")
    try:
        assert done.returncode == 0, done.stderr
        assert "Prometheus: http://127.0.0.1:9090" in done.stdout
        folder = deployed.path / ".demo/prometheus"
        arguments = (deployed.path / "arguments").read_text()
        assert f"--config.file={folder}/prometheus.yml" in arguments
        assert "--web.listen-address=127.0.0.1:9090" in arguments
        [instances, *_] = yaml.safe_load((folder / "prometheus.yml").read_text())["scrape_configs"]
        assert instances["static_configs"] == [
            {"targets": ["172.30.71.11:8002", "172.30.71.11:8003"]}
        ]
        assert (folder / "alert-rules.yml").exists()
        assert (folder / "ag-ui-ca.crt").read_text() == "certificate\n"
        token = folder / "ag-ui-token"
        assert (token.read_text(), token.stat().st_mode & 0o777) == ("a-token\n", 0o600)
        assert "Prometheus: http://127.0.0.1:9090" in deployed.run("script/demo", "status").stdout
        pids = [int((deployed.path / f".demo/{name}.pid").read_text()) for name in NAMES]
        assert all(is_running(pid) for pid in pids)
    finally:
        assert deployed.run("script/demo", "down").returncode == 0
    assert not any(is_running(pid) for pid in pids)
    assert not (deployed.path / ".demo").exists()


def test_says_how_to_reach_the_console(deployed: Checkout) -> None:
    try:
        done = deployed.run("script/demo")
        assert "The console: https://172.30.71.11/console/\n" in done.stdout
        assert "    ssh -N -L 8443:172.30.71.11:443 " in done.stdout
        assert "open https://localhost:8443/console/\n" in done.stdout
    finally:
        assert deployed.run("script/demo", "down").returncode == 0


def test_demo_has_no_monitoring_unless_asked(deployed: Checkout) -> None:
    done = deployed.run("script/demo")
    assert done.returncode == 0, done.stderr
    assert "Prometheus" not in done.stdout
    # The simulator must not hold the lock of the run that has started it.
    assert deployed.run("script/demo", "up").returncode == 0
    assert not (deployed.path / "arguments").exists()
    assert deployed.run("script/demo", "down").returncode == 0
