"""A real nginx with the role's site, on free ports of this machine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tests.support.role_variables import variable_files

if TYPE_CHECKING:
    from collections.abc import Mapping

ROLE = Path(__file__).resolve().parents[2] / "roles/ag_ui_deployment"
_START_SECONDS = 20.0

# Like Debian's, without the settings that need root.
NGINX_CONF = """
pid {folder}/nginx.pid;
error_log {folder}/error.log;
include {folder}/modules-enabled/*.conf;
events {{
    worker_connections 768;
}}
http {{
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/conf.d/*.conf;
    include {folder}/sites-enabled/*;
}}
"""


def program() -> str:
    """Return the path of nginx, which script/bootstrap installs; users' PATH may not include it."""
    found = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    assert found, "there is no nginx: run script/bootstrap tools"
    return found


def version() -> str:
    """Return the version number of the installed nginx."""
    asked = subprocess.run([program(), "-v"], capture_output=True, text=True, check=True)
    return asked.stderr.strip().rpartition("/")[2].split()[0]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def make_certificate(folder: Path, *names: str, days: int = 2) -> None:
    """Make a self-signed certificate and its key, as server.crt and server.key."""
    folder.mkdir(parents=True, exist_ok=True)
    san = ",".join(f"DNS:{name}" for name in names)
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-nodes", "-sha256", "-days", str(days)),
            *("-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", f"/CN={names[0]}"),
            *("-addext", f"subjectAltName={san}"),
            *("-keyout", folder / "server.key", "-out", folder / "server.crt"),
        ],
        capture_output=True,
        check=True,
    )


def make_folders(folder: Path) -> None:
    """Make the files that Debian has in /etc/nginx."""
    for name in ("conf.d", "sites-enabled", "modules-enabled"):
        (folder / name).mkdir(parents=True)
    (folder / "nginx.conf").write_text(NGINX_CONF.format(folder=folder))


def allow_reading(folder: Path) -> None:
    """Let workers read the private folders of pytest, if root starts nginx."""
    if os.geteuid() == 0:
        configuration = folder / "nginx.conf"
        configuration.write_text(f"user root;\n{configuration.read_text()}")


def render_site(folder: Path, variables: Mapping[str, Any]) -> None:
    """Render the site into conf.d as the role does with these variables, without a proxy key."""
    (folder / "proxy-key.conf").touch()
    known = {
        "ansible_python_interpreter": sys.executable,
        "role_path": str(ROLE),
        "__ag_ui_peer_endpoints": [],
        "__ag_ui_config_dir": str(folder),
        "__ag_ui_proxy_logs": str(folder),
        "__ag_ui_preflight": {"ipv6": False, "nginx": version()},
    }
    command = [f"{Path(sys.executable).parent}/ansible", "localhost", "--inventory", "localhost,"]
    command += ["--connection", "local", "--module-name", "ansible.builtin.template"]
    # Finds the filters of the role.
    command += ["--playbook-dir", str(ROLE)]
    command += [
        "--args",
        f"src={ROLE}/templates/nginx-site.conf.j2 dest={folder}/conf.d/ag-ui.conf",
    ]
    for path in (ROLE / "defaults/main.yml", *variable_files(ROLE)):
        command += ["--extra-vars", f"@{path}"]
    command += ["--extra-vars", json.dumps(known | dict(variables))]
    done = subprocess.run(
        command,
        env=os.environ | {"ANSIBLE_CONFIG": str(ROLE.parents[1] / "ansible.cfg")},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @classmethod
    def parsed(cls, raw: bytes) -> Self:
        """Parse a raw HTTP/1 response; header names become lower case."""
        head, _, body = raw.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines)
        return cls(
            int(status.split()[1]), {n.lower(): value.strip() for n, _, value in pairs}, body
        )

    def json(self) -> Any:
        return json.loads(self.body)


class Nginx:
    """Runs nginx with its own folder for the duration of a `with` block."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def command(self) -> list[str]:
        folder = str(self.folder)
        return [program(), "-p", folder, "-c", f"{folder}/nginx.conf", "-e", f"{folder}/error.log"]

    def test(self) -> str:
        """Return the output of `nginx -t`; fails if nginx rejects the configuration."""
        done = subprocess.run([*self.command, "-t"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stderr

    def __enter__(self) -> Self:
        self.test()
        subprocess.run(self.command, check=True, capture_output=True, timeout=_START_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int | None:
        """Return the process id of the master process, or None if it does not run."""
        try:
            pid = int((self.folder / "nginx.pid").read_text())
            os.kill(pid, 0)
        except (OSError, ValueError):
            return None
        return pid

    def stop(self) -> None:
        if pid := self.pid:
            os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + _START_SECONDS
        while self.pid and time.monotonic() < deadline:
            time.sleep(0.02)

    def log(self, name: str) -> str:
        path = self.folder / name
        return path.read_text() if path.exists() else ""

    def send(self, port: int, raw: bytes, *, tls: bool = True) -> Answer:
        """Send raw bytes and read until nginx closes the connection."""
        with socket.create_connection(("127.0.0.1", port), 10) as connection:
            if tls:
                context = ssl.create_default_context()
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
                with context.wrap_socket(connection) as encrypted:
                    return _exchange(encrypted, raw)
            return _exchange(connection, raw)


def _exchange(connection: socket.socket, raw: bytes) -> Answer:
    connection.sendall(raw)
    received = b""
    while piece := connection.recv(65536):
        received += piece
    return Answer.parsed(received)
