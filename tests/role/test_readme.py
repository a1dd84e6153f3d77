"""Commands of the README and of docs/operations.md work as described."""

from __future__ import annotations

import re
import subprocess
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.support.role_templates import TOP, inventory, render
from tests.support.site_playbook import REQUIRED_VARIABLES
from tests.support.threaded_server import serving

GENERATED = "m" * 48
GIVEN = "the site's own token \\ 0123456789abcdef"
HOSTS: dict[str, dict[str, Any]] = {
    "generated": {},
    "given": {"ag_ui_metrics_token": GIVEN},
}


class Metrics(BaseHTTPRequestHandler):
    """Records the tokens it receives and the command lines that run at that time."""

    shown: ClassVar[list[str | None]] = []
    running: ClassVar[list[bytes]] = []

    def do_GET(self) -> None:
        self.shown.append(self.headers["Authorization"])
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                self.running.append(process.read_bytes())
            except OSError:
                continue
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    hosts = inventory({"group": HOSTS}, REQUIRED_VARIABLES)
    return render(tmp_path_factory.mktemp("readme"), "backend.env.j2", hosts)


@pytest.mark.parametrize(("host", "token"), [("generated", GENERATED), ("given", GIVEN)])
def test_metrics_command_hides_the_token_from_the_process_list(
    environments: Path, host: str, token: str
) -> None:
    [command] = re.findall(
        r"^curl --config .*$", (TOP / "docs/operations.md").read_text(), re.MULTILINE
    )
    with serving(HTTPServer(("127.0.0.1", 0), Metrics)) as port:
        command = command.replace("/etc/ag-ui/current/backend.env", str(environments / host))
        command = command.replace(":8002/", f":{port}/")
        subprocess.run(["bash", "-c", command], check=False, capture_output=True)
    assert Metrics.shown[-1] == f"Bearer {token}"
    assert not [line for line in Metrics.running if token.encode() in line]
