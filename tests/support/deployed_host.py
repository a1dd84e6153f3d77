"""A host with the command ag-ui: folders, stub programs of systemd and Docker, and servers in place of instances and proxy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from tests.support.ansible_module import TOP
from tests.support.certificates import server_context, sign
from tests.support.threaded_server import serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAME = "ag-ui.example"
TOKEN = "it's a token \\ " + "t" * 40
# Runs the command as this user id, with the description of the site of the test.
START = """
import os, sys
from pathlib import Path

top, user, site = sys.argv[1:4]
os.geteuid = lambda: int(user)
sys.path[:0] = [f"{top}/roles/ag_ui_deployment/files/host", f"{top}/collections"]
from ag_ui_command.main import main

sys.exit(main(sys.argv[4:], Path(site)))
"""
# A stub of systemd: it prefers the unit under trial. The text of a running unit is in $STATE/UNIT, and determines how its
# instance behaves.
SYSTEMCTL = r"""#!/bin/sh
echo "$@" >>"$STATE/calls"
last() { for word; do :; done; echo "$word"; }
unit=$(last "$@")
case $1 in
show)
  case $2 in
  *MainPID) cat "$NGINX/nginx.pid" ;;
  *InvocationID) cat "$STATE/$unit.invocation" 2>/dev/null ;;
  *)
    shift 2
    for name; do
      state=inactive enabled=disabled
      test -e "$STATE/$name" && state=active
      test -e "$STATE/$name.enabled" && enabled=enabled
      printf 'Id=%s\nActiveState=%s\nUnitFileState=%s\n\n' "$name" "$state" "$enabled"
    done ;;
  esac ;;
is-active) test -e "$STATE/$unit" && ! grep -q dies "$STATE/$unit" ;;
is-failed) test -e "$STATE/$unit.failed" ;;
cat) test -e "$KEPT/$unit" || exit 1; echo "# $KEPT/$unit"; cat "$KEPT/$unit" ;;
enable) shift; for name; do case $name in -*) ;; *) touch "$STATE/$name.enabled" ;; esac; done ;;
disable) rm -f "$STATE/$unit.enabled" ;;
stop) rm -f "$STATE/$unit" "$STATE/$unit.failed" ;;
reload) kill -HUP "$(cat "$NGINX/nginx.pid")" ;;
start | restart)
  for file in "$TRIED/$unit" "$KEPT/$unit"; do test -e "$file" && break; done
  echo "$$" >"$STATE/$unit.invocation"
  rm -f "$STATE/$unit" "$STATE/$unit.failed"
  grep -q crashes "$file" && { touch "$STATE/$unit.failed"; exit 1; }
  cp "$file" "$STATE/$unit"
  if grep -q blocks "$file"; then while test ! -e "$STATE/continue"; do sleep 0.05; done; fi ;;
esac
exit
"""
# A stub of Docker: the containers are those of the running units.
DOCKER = r"""#!/bin/sh
echo "$@" >>"$STATE/docker"
case "$1 $2" in
ps*)
  for file in "$STATE"/ag-ui-backend@*.service; do
    test -e "$file" || continue
    port=$(basename "$file" .service | sed 's/.*@//')
    echo "ag-ui-backend-$port $(sed -n 's|.*/releases/\(.*\)/release.env|\1|p' "$file")"
  done ;;
"image inspect") for word; do :; done; grep -qx "$word" "$STATE/images" && echo "sha256:$word" ;;
kill*) for word; do :; done; ! grep -qsx "$word" "$STATE/deaf" ;;
esac
"""
ECHO = '#!/bin/sh\nprintf "%s\\n" "$(basename "$0") $*"\n'
METRICS = """# HELP ag_ui_group_lag Entries
ag_ui_group_lag {lag}
ag_ui_group_pending {pending}
ag_ui_dead_letters_open {letters}
"""


class Host:
    """The folder."""

    def __init__(self, root: Path, ports: list[int], proxy: int) -> None:
        self.root, self.ports = root, ports
        self.etc, self.state = root / "etc", root / "state"
        self.kept, self.tried, self.nginx = root / "kept", root / "tried", root / "nginx"
        for folder in (self.etc / "releases", self.state, self.kept, self.nginx, root / "bin"):
            folder.mkdir(parents=True)
        self.metrics = {"lag": "7.0", "pending": "2.0", "letters": "NaN"}
        self.flag, self.lock = root / "maintenance", root / "deployment.lock"
        self.site: dict[str, Any] = {
            "server_name": NAME,
            "https_port": proxy,
            "address": "127.0.0.1",
            "ports": ports,
            "ca": str(root / "server.crt"),
            "certificate_remedy": "Deploy: this renews it.",
            "healthy_within": 1,
            "watch_seconds": 0,
            "target": "ag-ui.target",
            "unit": "ag-ui-backend",
            "unit_directory": str(self.kept),
            "trial_directory": str(self.tried),
            "configuration": str(self.etc),
            "certificate": str(root / "server.crt"),
            "state": str(root),
            "nginx": str(self.nginx / "nginx.conf"),
            "proxy_site": str(self.nginx / "site.conf"),
            "proxy_main": str(self.nginx / "main.conf"),
            "proxy_stamp": str(root / "proxy.loaded"),
            "maintenance": str(self.flag),
            "lock": str(self.lock),
        }
        for name, text in (("systemctl", SYSTEMCTL), ("docker", DOCKER)):
            self.add_program(name, text)
        self.add_program("journalctl", ECHO)
        self.add_program("nginx", "#!/bin/sh\n")
        self.add_program("timedatectl", "#!/bin/sh\necho yes\n")
        (root / "images").touch()

    def add_program(self, name: str, text: str) -> None:
        program = self.root / "bin" / name
        program.write_text(text)
        program.chmod(0o755)

    def unit(self, port: int) -> str:
        return f"ag-ui-backend@{port}.service"

    def add_release(self, name: str, site: str = "first") -> None:
        """Add a release that was deployed, with its image."""
        folder = self.etc / "releases" / name
        folder.mkdir()
        text = f"EnvironmentFile=/etc/ag-ui/releases/{name}/release.env\n"
        text += "ExecStartPost=curl http://127.0.0.1:%i/health/ready; done\n"
        (folder / "ag-ui-backend@.service").write_text(text)
        (folder / "release.env").write_text(f"AG_UI_IMAGE=image:{name}\n")
        quoted = TOKEN.replace("\\", "\\\\").replace("'", "\\'")
        (folder / "backend.env").write_text(f"METRICS_TOKEN='{quoted}'\n")
        (folder / "nginx-site.conf").write_text(f"# {self.flag} {site}\n")
        (folder / "nginx-main.conf").write_text("# main\n")
        (folder / "deployed").touch()
        record = {"release": name, "image": f"image:{name}", "outcome": "deployed", "reason": ""}
        record |= {"by": "me@controller", "finished": "2026-01-02T03:04:05Z"}
        self.write_record(name, record | {"ports": self.ports, "address": "127.0.0.1"})
        with (self.state / "images").open("a") as images:
            images.write(f"image:{name}\n")

    def write_record(self, name: str, record: dict[str, Any]) -> None:
        (self.etc / "releases" / name / "record.json").write_text(json.dumps(record))

    def record(self, name: str) -> dict[str, Any]:
        record: dict[str, Any] = json.loads(
            (self.etc / "releases" / name / "record.json").read_text()
        )
        return record

    def deploy_second(self) -> None:
        """Deploy the release `first`, then `second`."""
        self.add_release("first")
        self.add_release("second")
        os.utime(self.etc / "releases/first/deployed", (1, 1))
        self.deploy("second", "first")

    def deploy(self, name: str, previous: str = "") -> None:
        """Make a release the running one."""
        release = self.etc / "releases" / name
        for link, target in (("current", name), ("previous", previous)):
            if target:
                (self.etc / link).symlink_to(f"releases/{target}")
        for port in self.ports:
            text = (release / "ag-ui-backend@.service").read_text()
            (self.kept / self.unit(port)).write_text(text)
            (self.state / self.unit(port)).write_text(text)
            (self.state / f"{self.unit(port)}.enabled").touch()
        for unit in ("ag-ui.target", "nginx.service", "docker.service"):
            (self.state / unit).touch()
            (self.state / f"{unit}.enabled").touch()
        for file, original in (("site.conf", "nginx-site.conf"), ("main.conf", "nginx-main.conf")):
            (self.nginx / file).write_text((release / original).read_text())
        (self.root / "proxy.loaded").touch()

    def running(self, port: int) -> str:
        """Return the text of the unit that an instance runs with; empty if it does not run."""
        path = self.state / self.unit(port)
        return path.read_text() if path.exists() else ""

    def runs(self, port: int, release: str) -> bool:
        return f"/releases/{release}/" in self.running(port)

    def calls(self, program: str = "calls") -> list[str]:
        path = self.state / program
        return path.read_text().splitlines() if path.exists() else []

    @property
    def environment(self) -> dict[str, str]:
        path = f"{self.root}/bin:{os.environ['PATH']}"
        folders = {"KEPT": self.kept, "TRIED": self.tried, "STATE": self.state}
        folders["NGINX"] = self.nginx
        return os.environ | {name: str(path) for name, path in folders.items()} | {"PATH": path}

    def command(self, *arguments: str, user: int = 0) -> list[str]:
        """Return the command line of the command."""
        site = self.root / "site.json"
        site.write_text(json.dumps(self.site))
        return [sys.executable, "-c", START, str(TOP), str(user), str(site), *arguments]

    def run(self, *arguments: str, user: int = 0) -> subprocess.CompletedProcess[str]:
        """Run the command, as root unless a user id is given."""
        return subprocess.run(
            self.command(*arguments, user=user),
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )


class Answering(BaseHTTPRequestHandler):
    """An instance, or the proxy, which asks an instance for its health."""

    host: Host

    def do_GET(self) -> None:
        port = self.server.server_address[1]  # type: ignore[index]
        is_proxy = port == self.host.site["https_port"]
        running = self.host.running(self.host.ports[0] if is_proxy else int(port))
        if not running and not is_proxy:
            # The client sees a closed connection.
            return
        status, text = self.answer(running)
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def answer(self, running: str) -> tuple[int, str]:
        if not running:
            return 502, json.dumps({"detail": "no instance"})
        if self.path == "/metrics":
            if self.headers["Authorization"] != f"Bearer {TOKEN}":
                return 401, "{}"
            return 200, METRICS.format(**self.host.metrics)
        if self.path == "/health" and "degraded" in running:
            checks = {"database": {"status": "down", "detail": "connection refused"}}
            checks["redis"] = {"status": "ok", "detail": "answers"}
            return 200, json.dumps({"status": "degraded", "checks": checks})
        return 200, json.dumps({"status": "healthy", "checks": {}})

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def deployed_host(folder: Path) -> Iterator[Host]:
    """Start the servers of a host with two instances and a proxy, and no release yet."""
    own = sign(NAME, hosts=[NAME])
    (folder / "server.crt").write_text(own.pem)
    answering = type("OfThisHost", (Answering,), {})
    with ExitStack() as stack:
        servers = [ThreadingHTTPServer(("127.0.0.1", 0), answering) for _ in range(3)]
        context = server_context(own, folder)
        servers[2].socket = context.wrap_socket(servers[2].socket, server_side=True)
        ports = [stack.enter_context(serving(server)) for server in servers]
        host = Host(folder, ports[:2], ports[2])
        answering.host = host  # type: ignore[attr-defined]
        yield host
