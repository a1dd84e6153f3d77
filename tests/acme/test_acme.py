"""Certificates by ACME: the role's tasks of the proxy with certbot and a real ACME server, on a folder in place of a host."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
import time
from http.server import ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.support.acme_server import BLOCKED, AcmeServer
from tests.support.ansible_module import import_util
from tests.support.healthy_instance import Healthy
from tests.support.nginx import free_port, make_certificate, version
from tests.support.playbook import run_playbook
from tests.support.proxy_host import PROXY_KEY, ProxyHost
from tests.support.role_variables import DEFAULTS
from tests.support.site_playbook import REQUIRED_VARIABLES
from tests.support.threaded_server import serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.playbook import Run

NAME, ALIAS = "ag-ui.example", "www.ag-ui.example"
RELOAD_SECONDS = 10.0


class AcmeHost(ProxyHost):
    """A host whose certbot keeps its files in the folder."""

    def __init__(self, folder: Path, backend: int) -> None:
        super().__init__(folder)
        self.https, self.http, self.backend = free_port(), free_port(), backend
        self.letsencrypt = folder / "letsencrypt"
        self.override = folder / "certbot.service.d/ag-ui.conf"
        self.hook = folder / "certificate-hook"
        (folder / "secrets").mkdir()
        if os.geteuid() == 0:
            # The folders of pytest are private.
            configuration = folder / "nginx.conf"
            configuration.write_text(f"user root;\n{configuration.read_text()}")
        paths = {"config": self.letsencrypt, "work": folder / "work", "logs": folder / "certbot"}
        options = [f"--{name}-dir={path}" for name, path in paths.items()]
        command = shlex.join([shutil.which("certbot") or "certbot", *options])
        self._add_program("certbot", f'#!/bin/sh\nexec {command} "$@"\n')
        self._add_program("logger", f'#!/bin/sh\necho "$@" >>{folder}/journal\n')

    def apply(
        self,
        mode: str,
        *tasks: str,
        names: tuple[str, ...] = (NAME, ALIAS),
        check: bool = False,
        **changes: Any,
    ) -> Run:
        """Run the tasks of the proxy, and others, on this host."""
        roles = [{"name": "ag_ui_deployment", "tasks_from": name} for name in ("proxy", *tasks)]
        run = [{"name": "Run them", "ansible.builtin.include_role": role} for role in roles]
        play = {"hosts": "all", "gather_facts": False, "tasks": run}
        (self.folder / "play.yml").write_text(yaml.safe_dump([play]))
        certificate = self.folder / "tls/server.crt"
        found = import_util("ag_ui_host_state").certificate_names(str(certificate))
        own = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "ansible_facts": {"hostname": "a", "fqdn": "a", "default_ipv4": {}},
            "ag_ui_server_name": names[0],
            "ag_ui_server_aliases": names[1:],
            "ag_ui_https_port": self.https,
            "ag_ui_http_port": self.http,
            "ag_ui_backend_ports": [self.backend],
            "ag_ui_tls_mode": mode,
            "__ag_ui_preflight": {
                "ipv6": False,
                "nginx": version(),
                "certificate": found,
                "running": [],
                "existing": [str(path) for path in self.folder.rglob("*")],
            },
            "__ag_ui_generated": {"values": {"proxy_key": PROXY_KEY}},
            "__ag_ui_config_dir": str(self.folder),
            "__ag_ui_state_dir": str(self.folder),
            "__ag_ui_proxy_nginx": str(self.folder),
            "__ag_ui_proxy_logs": str(self.folder / "logs"),
            "__ag_ui_letsencrypt": str(self.letsencrypt),
            "__ag_ui_certbot_overrides": str(self.override.parent),
        }
        return run_playbook(
            *(["--check"] if check else []),
            *("--inventory", "hx-dev-server,"),
            *("--extra-vars", json.dumps(DEFAULTS | REQUIRED_VARIABLES | own | changes)),
            self.folder / "play.yml",
            environment=self.environment,
        )

    def obtain(self, server: AcmeServer, *tasks: str, **changes: Any) -> Run:
        """Run the tasks with a certificate of this ACME server."""
        acme: dict[str, Any] = {
            "ag_ui_acme_terms_agreed": True,
            "ag_ui_acme_email": "operator@ag-ui.example",
            "ag_ui_acme_directory": server.directory,
            "ag_ui_acme_ca": str(server.ca),
        }
        return self.apply("acme", *tasks, **(acme | changes))

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a program as on the host; output and errors are together."""
        return subprocess.run(
            command,
            env={**os.environ, **self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=120,
        )

    def renew(self) -> str:
        """Run what certbot's timer starts; return its output."""
        unit = self.override.read_text()
        environment = dict(re.findall(r"^Environment=(\w+)=(.*)$", unit, re.MULTILINE))
        for before in re.findall(r"^ExecStartPre=(.*)$", unit, re.MULTILINE):
            done = self.run(*shlex.split(before))
            assert done.returncode == 0, done.stdout
        done = self.run("certbot", "-q", "renew", "--no-random-sleep-on-renew", **environment)
        assert done.returncode == 0, done.stdout
        return done.stdout

    @property
    def issued(self) -> str:
        """The newest certificate that certbot has."""
        return (self.letsencrypt / "live/ag-ui/cert.pem").read_text()

    @property
    def served(self) -> str:
        """The certificate that nginx presents."""
        return ssl.get_server_certificate(("127.0.0.1", self.https))

    def serves(self, server: AcmeServer) -> bool:
        """Whether the newest certificate is from this server, for both names, and nginx presents it."""
        try:
            return self.served == self.issued and self.verify(server.root, NAME) == [NAME, ALIAS]
        except OSError:
            return False

    def wait_until_served(self, pem: str) -> None:
        deadline = time.monotonic() + RELOAD_SECONDS
        while self.served != pem:
            assert time.monotonic() < deadline, "nginx serves another certificate"
            time.sleep(0.05)

    def verify(self, root: str, *names: str) -> list[str]:
        """Connect as a client that trusts only the root; return the names of the certificate."""
        context = ssl.create_default_context(cadata=root)
        found: list[str] = []
        for name in names:
            with (
                socket.create_connection(("127.0.0.1", self.https), 10) as connection,
                context.wrap_socket(connection, server_hostname=name) as encrypted,
            ):
                certificate: Any = encrypted.getpeercert()
                found = [value for _, value in certificate["subjectAltName"]]
        return sorted(found)


@pytest.fixture(scope="module")
def backend() -> Iterator[int]:
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Healthy)) as port:
        yield port


@pytest.fixture(scope="module")
def host(backend: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AcmeHost]:
    host = AcmeHost(tmp_path_factory.mktemp("host"), backend)
    yield host
    host.nginx.stop()


@pytest.fixture(scope="module")
def server(host: AcmeHost, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AcmeServer]:
    with AcmeServer(tmp_path_factory.mktemp("acme") / "server", host.http) as server:
        yield server


@pytest.fixture
def site(host: AcmeHost, server: AcmeServer) -> AcmeHost:
    """A site with a certificate of the ACME server for both names."""
    if not host.serves(server):
        done = host.obtain(server)
        assert done.code == 0, done.output
    return host


def test_check_mode_changes_nothing(backend: int, server: AcmeServer, tmp_path: Path) -> None:
    new = AcmeHost(tmp_path / "host", backend)
    before = [*new.folder.rglob("*")]
    done = new.obtain(server, check=True)
    assert done.code == 0, done.output
    assert "ag_ui_deployment : Proxy | Obtain the certificate from the ACME server" in [
        one.task for one in done.results if one.changed
    ]
    assert [path for path in new.folder.rglob("*") if path not in before] == [
        new.folder / "play.yml"
    ]


def test_first_failure_leaves_a_site_and_the_next_run_heals_it(
    host: AcmeHost, server: AcmeServer, tmp_path: Path
) -> None:
    with AcmeServer(tmp_path / "server", free_port()) as unreachable:
        failed = host.obtain(unreachable)
    assert failed.code != 0, failed.output
    assert "certbot failed, so nginx goes on with the certificate that it has" in failed.message
    # The words of certbot, with what the ACME server says.
    assert f"Domain: {NAME}" in failed.message
    assert "Type: connection" in failed.message
    assert "connection refused" in failed.message
    assert host.nginx.send(host.https, b"GET / HTTP/1.0\r\n\r\n").status == 200
    healed = host.obtain(server)
    assert healed.code == 0, healed.output
    assert host.verify(server.root, NAME, ALIAS) == [NAME, ALIAS]
    again = host.obtain(server)
    assert again.code == 0, again.output
    assert again.changes == {"hx-dev-server": 0}, again.output


def test_other_requests_are_still_redirected(site: AcmeHost) -> None:
    answer = site.nginx.send(
        site.http,
        f"GET /x?y=1 HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n".encode(),
        tls=False,
    )
    assert answer.status == 308
    assert answer.headers["location"] == f"https://{NAME}:{site.https}/x?y=1"
    missing = b"GET /.well-known/acme-challenge/none HTTP/1.0\r\n\r\n"
    assert site.nginx.send(site.http, missing, tls=False).status == 404


def test_timer_renews_and_nginx_serves_the_new_certificate(
    site: AcmeHost, server: AcmeServer
) -> None:
    before = site.issued
    assert site.served == before
    assert site.renew() == ""
    assert site.issued != before
    site.wait_until_served(site.issued)
    assert site.verify(server.root, NAME, ALIAS) == [NAME, ALIAS]
    assert (site.folder / "tls/server.key").stat().st_mode & 0o777 == 0o600
    assert not (site.folder / "tls/former").exists()


def test_other_broken_site_delays_a_renewed_certificate_until_the_next_reload(
    site: AcmeHost,
) -> None:
    before = site.issued
    other = site.folder / "sites-enabled/shop"
    other.write_text("serve {}\n")
    site.renew()
    other.unlink()
    journal = (site.folder / "journal").read_text()
    assert "The renewed certificate is installed, but nginx cannot be reloaded" in journal
    assert 'unknown directive "serve"' in journal
    assert site.served == before
    assert site.run("systemctl", "reload", "nginx.service").returncode == 0
    site.wait_until_served(site.issued)


def test_certificate_that_nginx_rejects_does_not_replace_the_one_before(
    site: AcmeHost, tmp_path: Path
) -> None:
    make_certificate(tmp_path, NAME)
    (tmp_path / "server.crt").rename(tmp_path / "fullchain.pem")
    make_certificate(tmp_path, NAME)
    (tmp_path / "server.key").rename(tmp_path / "privkey.pem")
    before = site.files()
    done = site.run(str(site.hook), RENEWED_LINEAGE=str(tmp_path))
    assert done.returncode != 0
    assert "nginx rejects the renewed certificate, so it keeps the one before" in done.stdout
    assert "key values mismatch" in done.stdout
    assert site.files() == before
    assert site.served == site.issued


def test_changed_names_are_in_a_new_certificate(site: AcmeHost, server: AcmeServer) -> None:
    before = site.served
    done = site.obtain(server, names=(NAME, "api.ag-ui.example"))
    assert done.code == 0, done.output
    assert site.verify(server.root, "api.ag-ui.example") == [NAME, "api.ag-ui.example"]
    assert site.served != before
    assert [path.name for path in (site.letsencrypt / "renewal").iterdir()] == ["ag-ui.conf"]


def test_failure_leaves_the_certificate_that_was_there(site: AcmeHost, server: AcmeServer) -> None:
    before = site.files()
    done = site.obtain(server, names=(NAME, BLOCKED))
    assert done.code != 0, done.output
    assert "Order included an identifier for which issuance is forbidden by policy" in done.message
    after = site.files()
    tls = [name for name in before if "/tls/" in name]
    assert [name for name in tls if after[name] != before[name]] == []
    assert site.served == site.issued


def test_other_server_issues_anew(site: AcmeHost, tmp_path: Path) -> None:
    with AcmeServer(tmp_path / "server", site.http) as other:
        done = site.obtain(other)
        assert done.code == 0, done.output
        assert site.verify(other.root, NAME, ALIAS) == [NAME, ALIAS]


def _empty_settings(host: AcmeHost) -> None:
    (host.letsencrypt / "renewal/ag-ui.conf").write_text("")


def _no_settings(host: AcmeHost) -> None:
    (host.letsencrypt / "renewal/ag-ui.conf").unlink()


def _no_link(host: AcmeHost) -> None:
    (host.letsencrypt / "live/ag-ui/fullchain.pem").unlink()


@pytest.mark.parametrize("interrupt", [_empty_settings, _no_settings, _no_link])
def test_interrupted_certbot_is_healed(
    site: AcmeHost, server: AcmeServer, interrupt: Callable[[AcmeHost], None]
) -> None:
    interrupt(site)
    done = site.obtain(server)
    assert done.code == 0, done.output
    assert site.served == site.issued
    assert [path.name for path in (site.letsencrypt / "live").iterdir() if path.is_dir()] == [
        "ag-ui"
    ]


def test_other_mode_ends_the_renewal(site: AcmeHost, server: AcmeServer) -> None:
    done = site.apply("self_signed")
    assert done.code == 0, done.output
    assert list((site.letsencrypt / "renewal").iterdir()) == []
    left = [
        site.hook,
        site.override.parent,
        *site.folder.glob("acme*"),
        *site.folder.glob("tls/acme*"),
    ]
    assert [path for path in left if path.exists()] == []
    own = (site.folder / "tls/server.crt").read_text()
    assert site.served == own
    assert site.verify(own, NAME, ALIAS) != []
    assert site.run("certbot", "renew", "--no-random-sleep-on-renew").returncode == 0
    again = site.apply("self_signed")
    assert again.changes == {"hx-dev-server": 0}, again.output
    back = site.obtain(server)
    assert back.code == 0, back.output
    assert site.served == site.issued
