"""The configuration of an nginx in front of an instance, rendered from the role's template."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from string import Template

from bench.processes import run
from bench.servers import program
from tests.support.role_variables import variable_files

HERE = Path(__file__).parent
ROLE = HERE.parent / "roles/ag_ui_deployment"
_CONNECTIONS = 16384


def nginx_version() -> str:
    """Return the version, which nginx prints on standard error."""
    done = subprocess.run(  # noqa: S603 - the distribution's nginx
        [program("nginx"), "-v"], capture_output=True, text=True, check=True
    )
    match = re.search(r"\d+\.\d+\.\d+", done.stderr)
    return match.group() if match else done.stderr.strip()


def write_configuration(folder: Path, port: int, instance: int) -> None:
    """Write nginx.conf for HTTPS on a local port, with a self-signed certificate."""
    _make_certificate(folder / "tls")
    # An instance without PROXY_KEY does not check the key.
    (folder / "proxy-key.conf").touch()
    _write_site(folder, port, instance)
    template = Template((HERE / "proxy.conf").read_text())
    (folder / "nginx.conf").write_text(template.substitute(connections=_CONNECTIONS))


def _make_certificate(folder: Path) -> None:
    folder.mkdir()
    command = [program("openssl"), "req", "-x509", "-newkey", "ec", "-nodes", "-sha256"]
    command += ["-pkeyopt", "ec_paramgen_curve:prime256v1", "-days", "2", "-subj", "/CN=localhost"]
    run([*command, "-keyout", f"{folder}/server.key", "-out", f"{folder}/server.crt"])


def _write_site(folder: Path, port: int, instance: int) -> None:
    """Render the role's template with its defaults, except for the per-client limits.

    The logs go to the folder, since only root may write to their default location.
    """
    variables = {
        "ansible_python_interpreter": sys.executable,
        "ag_ui_server_name": "localhost",
        "ag_ui_http_port": 0,
        "ag_ui_https_port": f"127.0.0.1:{port}",
        "ag_ui_bind_address": "127.0.0.1",
        "ag_ui_backend_ports": [instance],
        "ag_ui_request_rate": 100_000,
        "ag_ui_streams_per_address": 20_000,
        "role_path": str(ROLE),
        "__ag_ui_peer_endpoints": [],
        "__ag_ui_config_dir": str(folder),
        "__ag_ui_proxy_logs": str(folder),
        "__ag_ui_preflight": {"ipv6": False, "nginx": nginx_version()},
    }
    command = [f"{Path(sys.executable).parent}/ansible", "localhost", "--inventory", "localhost,"]
    command += ["--connection", "local", "--module-name", "ansible.builtin.template"]
    command += ["--args", f"src={ROLE}/templates/nginx-site.conf.j2 dest={folder}/site.conf"]
    for path in (ROLE / "defaults/main.yml", *variable_files(ROLE)):
        command += ["--extra-vars", f"@{path}"]
    command += ["--extra-vars", json.dumps(variables)]
    run(command)
