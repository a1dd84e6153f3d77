"""A configuration for nginx is valid and loaded, or rolled back completely; uses a real nginx."""

from __future__ import annotations

import os
import shutil
import signal
import ssl
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.ansible_module import run_module
from tests.support.nginx import free_port, make_certificate
from tests.support.packaged_site import add_packaged_site
from tests.support.proxy_host import ProxyHost

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAME = "ag-ui.example"
GET = b"GET / HTTP/1.1\r\nHost: ag-ui.example\r\nConnection: close\r\n\r\n"
SITE = """server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {folder}/tls/server.crt;
    ssl_certificate_key {folder}/tls/server.key;
    access_log {folder}/logs/ag-ui.access.log;
    return 200 {version};
}}
"""
OTHER = "server {{ listen 127.0.0.1:{port}; return 200 other; }}\n"


class Host(ProxyHost):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.port, self.other_port = free_port(), free_port()
        self.changes = folder / "proxy.changes"
        (folder / "sites-enabled/other").write_text(OTHER.format(port=self.other_port))
        self.new_pair()

    def new_pair(self) -> None:
        """Write the new certificate beside the active one, as the previous tasks do."""
        make_certificate(self.folder / "new", NAME)

    def load(
        self, version: str, *, check: bool = False, started: bool = True, **options: Any
    ) -> dict[str, Any]:
        folder = self.folder
        site = SITE.format(port=self.port, folder=folder, version=version)
        files = [{"path": str(self.site), "mode": "0644", "content": site}]
        for name, mode in (("server.key", "0600"), ("server.crt", "0644")):
            pair = {"path": f"{folder}/tls/{name}", "mode": mode, "src": f"{folder}/new/{name}"}
            files.append(pair)
        arguments = {
            "main": f"{folder}/nginx.conf",
            "files": files,
            "packaged": [f"{folder}/sites-enabled/default"],
            "logs": [f"{folder}/logs/ag-ui.access.log"],
            "worker_connections": 1024,
            "changes": str(self.changes),
            "stamp": str(self.stamp),
            "started": started,
            "reload_seconds": 2,
            "_ansible_check_mode": check,
            "_ansible_diff": check,
            **options,
        }
        return run_module("ag_ui_nginx", arguments, folder, self.environment)

    def remove(self) -> dict[str, Any]:
        """Remove the site, as an uninstall does."""
        return self.load(
            "", files=[], packaged=[], worker_connections=None, absent=[str(self.site)]
        )

    def load_changed(self, version: str) -> bool:
        """Load the configuration; return whether that changed anything."""
        done = self.load(version)
        assert not done.get("failed"), done["msg"]
        return bool(done["changed"])

    def load_refused(self, version: str) -> str:
        done = self.load(version)
        assert done.get("failed")
        return str(done["msg"])

    def version(self) -> str:
        """Return the version of the configuration that nginx runs with."""
        return self.nginx.send(self.port, GET).body.decode()

    def other_answers(self) -> bool:
        return self.nginx.send(self.other_port, GET, tls=False).body == b"other"

    def certificate(self) -> str:
        """Return the certificate that nginx presents."""
        return ssl.get_server_certificate(("127.0.0.1", self.port))


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    host = Host(tmp_path)
    yield host
    host.nginx.stop()


# nginx has no directive `broken`.
BROKEN = "x; broken"


def test_a_second_run_changes_nothing(host: Host) -> None:
    example = host.folder / "sites-enabled/default"
    text = OTHER.format(port=free_port())
    add_packaged_site(example, text, programs=host.folder / "bin")
    assert host.load_changed("one")
    assert host.version() == "one"
    assert not example.is_symlink()
    assert "worker_connections 1024;" in (host.folder / "nginx.conf").read_text()
    assert (host.folder / "tls/server.key").stat().st_mode & 0o777 == 0o600
    assert not host.load_changed("one")
    assert host.load_changed("two")
    assert host.version() == "two"


def test_changed_default_site_is_kept(host: Host) -> None:
    example = host.folder / "sites-enabled/default"
    port = free_port()
    site = add_packaged_site(example, OTHER.format(port=port), programs=host.folder / "bin")
    site.write_text(f"# our shop\n{site.read_text()}")
    assert host.load_changed("one")
    assert example.is_symlink()
    assert host.nginx.send(port, GET, tls=False).body == b"other"
    assert not host.load_changed("one")


def test_rejected_configuration_is_not_installed(host: Host) -> None:
    host.load_changed("one")
    before = host.files()
    host.new_pair()
    message = host.load_refused(BROKEN)
    assert "nothing was installed" in message
    assert f'unknown directive "broken" in {host.site}:6' in message
    assert host.files() == before
    assert host.version() == "one"
    # The next start uses a valid configuration, and the other site works again.
    host.nginx.stop()
    with host.nginx:
        assert (host.version(), host.other_answers()) == ("one", True)


def test_certificate_with_another_key_is_not_installed(host: Host) -> None:
    host.load_changed("one")
    before = host.files()
    old_key = (host.folder / "new/server.key").read_bytes()
    host.new_pair()
    (host.folder / "new/server.key").write_bytes(old_key)
    assert "key values mismatch" in host.load_refused("one")
    assert host.files() == before


def test_invalid_file_of_another_site_is_named(host: Host) -> None:
    (host.folder / "sites-enabled/other").write_text("\nnonsense;\n")
    assert f"{host.folder}/sites-enabled/other:2" in host.load_refused("one")
    assert not host.site.exists()


@pytest.mark.parametrize("verb", ["reload", "start"])
def test_configuration_is_rolled_back_after_a_failed_load_and_loaded_later(
    host: Host, verb: str
) -> None:
    host.load_changed("one")
    before = host.files()
    if verb == "start":
        host.nginx.stop()
    host.fail_verbs(verb)
    host.new_pair()
    message = host.load_refused("two")
    assert f"{verb} is broken" in message
    assert "the old files were restored" in message
    assert host.files() == before
    host.fail_verbs()
    assert host.load_changed("two")
    assert host.version() == "two"
    assert not host.load_changed("two")


def test_reload_without_new_workers_is_detected(host: Host) -> None:
    """The reload command succeeds but the workers stay, since the master process is suspended."""
    host.load_changed("one")
    before = host.files()
    os.kill(host.nginx.pid or 0, signal.SIGSTOP)
    try:
        assert "keeps its old configuration" in host.load_refused("two")
    finally:
        os.kill(host.nginx.pid or 0, signal.SIGCONT)
    assert host.files() == before
    assert host.load_changed("one")
    assert host.version() == "one"


def test_next_run_completes_an_interrupted_run(host: Host) -> None:
    """Killed before the reload: all files are written, and nginx has not read them."""
    host.load_changed("one")
    host.new_pair()
    host.kill_caller_at("reload")
    with pytest.raises(AssertionError):
        host.load("two")
    assert "200 two" in host.site.read_text()
    assert host.version() == "one"
    host.fail_verbs()
    assert host.load_changed("two")
    assert host.version() == "two"
    assert host.certificate() == (host.folder / "new/server.crt").read_text()


def test_manual_change_is_reverted_in_file_and_process(host: Host) -> None:
    host.load_changed("one")
    host.site.write_text(host.site.read_text().replace("200 one", "200 hand"))
    os.kill(host.nginx.pid or 0, signal.SIGHUP)
    assert host.load_changed("one")
    assert host.version() == "one"


def test_check_mode_reports_the_change_and_makes_none(host: Host) -> None:
    host.load_changed("one")
    before = host.files()
    result = host.load("two", check=True)
    assert result["changed"]
    assert [(d["before_header"], "200 two" in d["after"]) for d in result["diff"]] == [
        (str(host.site), True)
    ]
    assert "nginx rejects" in host.load(BROKEN, check=True)["msg"]
    assert not host.load("one", check=True)["changed"]
    assert (host.files(), host.stamp.exists(), host.version()) == (before, True, "one")


def test_check_mode_works_without_the_new_key(host: Host) -> None:
    (host.folder / "new/server.key").unlink()
    assert host.load("one", check=True)["changed"]
    assert "There is no" in host.load_refused("one")
    assert not host.site.exists()


def test_private_key_is_not_in_the_result(host: Host) -> None:
    key = (host.folder / "new/server.key").read_text().splitlines()[1]
    assert key not in str(host.load("one", check=True))
    assert key not in str(host.load("one"))


def test_stopped_nginx_is_started_only_if_requested(host: Host) -> None:
    host.load_changed("one")
    host.nginx.stop()
    assert not host.load("one", started=False)["changed"]
    assert host.nginx.pid is None
    assert host.load_changed("one")
    assert host.version() == "one"


def test_files_are_removed_without_nginx(host: Host) -> None:
    host.load_changed("one")
    host.nginx.stop()
    (host.folder / "bin/nginx").unlink()
    for tool in ("kill", "cat", "grep"):
        (host.folder / "bin" / tool).symlink_to(shutil.which(tool) or "")
    arguments = {
        "main": f"{host.folder}/nginx.conf",
        "absent": [str(host.site)],
        "stamp": str(host.stamp),
        "started": False,
    }
    done = run_module("ag_ui_nginx", arguments, host.folder, {"PATH": f"{host.folder}/bin"})
    assert done["changed"]
    assert not host.site.exists()


def test_logs_are_created_with_private_mode(host: Host) -> None:
    log = host.folder / "logs/ag-ui.access.log"
    host.load("one", check=True)
    assert not log.exists()
    host.load_changed("one")
    host.version()
    assert log.stat().st_mode & 0o777 == 0o640
    assert '"GET / HTTP/1.1"' in log.read_text()
    log.chmod(0o644)
    assert host.load_changed("one")
    assert log.stat().st_mode & 0o777 == 0o640


def add_example(host: Host, text: str) -> Path:
    """Add the site that the package of nginx enables; return its link."""
    example = host.folder / "sites-enabled/default"
    add_packaged_site(example, text, programs=host.folder / "bin")
    return example


def test_removal_restores_the_configuration_of_others(host: Host) -> None:
    port = free_port()
    example = add_example(host, OTHER.format(port=port))
    target, before = example.readlink(), (host.folder / "nginx.conf").read_bytes()
    host.load_changed("one")
    host.load_changed("two")
    assert not os.path.lexists(example)
    assert host.remove()["changed"]
    assert example.readlink() == target
    assert host.nginx.send(port, GET, tls=False).body == b"other"
    assert (host.folder / "nginx.conf").read_bytes() == before
    assert not host.changes.exists()
    assert not host.remove()["changed"]


def test_interrupted_removal_is_completed(host: Host) -> None:
    port = free_port()
    example = add_example(host, OTHER.format(port=port))
    host.load_changed("one")
    host.kill_caller_at("reload")
    with pytest.raises(AssertionError):
        host.remove()
    host.fail_verbs()
    assert host.remove()["changed"]
    assert host.nginx.send(port, GET, tls=False).body == b"other"
    assert example.is_symlink()


def test_packaged_site_stays_away_if_another_took_its_place(host: Host) -> None:
    # Two default servers of one port, which nginx rejects.
    default = OTHER.format(port=f"{free_port()} default_server")
    example = add_example(host, default)
    host.load_changed("one")
    (host.folder / "sites-enabled/shop").write_text(default)
    assert host.remove()["changed"]
    assert not os.path.lexists(example)
    assert not host.site.exists()


def test_packaged_site_returns_when_the_role_no_longer_replaces_it(host: Host) -> None:
    example = add_example(host, OTHER.format(port=free_port()))
    host.load_changed("one")
    done = host.load("one", packaged=[])
    assert done["changed"]
    assert example.is_symlink()
    assert host.version() == "one"
    assert not host.load("one", packaged=[])["changed"]


def test_more_connections_of_the_host_are_kept(host: Host) -> None:
    main = host.folder / "nginx.conf"
    main.write_text(main.read_text().replace("768", "  4096"))
    host.load_changed("one")
    assert "worker_connections   4096;" in main.read_text()
    # The former value counts, not that of the previous run.
    host.load("one", worker_connections=8192)
    assert "worker_connections   8192;" in main.read_text()
    host.load("one", worker_connections=5000)
    assert "worker_connections   5000;" in main.read_text()
