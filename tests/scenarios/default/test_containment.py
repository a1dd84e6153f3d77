"""The privileges of a backend container, and places where secrets must not appear."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.scenarios.support.http import request

if TYPE_CHECKING:
    from tests.scenarios.support.site import Site

ENVIRONMENT_FILE = "/etc/ag-ui/current/backend.env"


def inside(site: Site, port: int, command: str) -> tuple[int, str]:
    """Return exit status and output of a shell command in the container."""
    done = site.dev.host.run("docker exec %s sh -c %s", site.container(port), command)
    return done.rc, done.stdout + done.stderr


def process(site: Site, port: int) -> dict[str, str]:
    """Return /proc/PID/status of the backend as seen on the host."""
    pid = site.inspect(site.container(port))["State"]["Pid"]
    lines = site.dev.run("cat", f"/proc/{pid}/status").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_backend_runs_as_the_service_account(site: Site) -> None:
    account = site.dev.host.user("agui")
    assert account.uid == 1001
    for port in site.ports:
        status = process(site, port)
        assert set(status["Uid"].split()) == {"1001"}
        assert set(status["Gid"].split()) == {str(account.gid)}


def test_backend_has_no_capabilities_and_no_new_privileges(site: Site) -> None:
    for port in site.ports:
        status = process(site, port)
        for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(status[kind], 16) == 0, kind
        assert status["NoNewPrivs"] == "1"


def test_root_file_system_is_read_only(site: Site) -> None:
    for port in site.ports:
        assert site.inspect(site.container(port))["HostConfig"]["ReadonlyRootfs"] is True
        for path in ("/written", "/app/written", "/app/src/written", "/etc/written"):
            code, output = inside(site, port, f"touch {path}")
            assert code != 0, path
            assert "Read-only" in output or "denied" in output, output
        assert inside(site, port, "touch /tmp/written && rm /tmp/written")[0] == 0


def test_memory_and_process_limits_are_set(site: Site) -> None:
    for port in site.ports:
        limits = site.inspect(site.container(port))["HostConfig"]
        assert limits["Memory"] > 0
        assert 0 < limits["PidsLimit"] <= 4096
        assert not limits["Privileged"]
        assert limits["CapAdd"] in (None, [])


def test_only_the_environment_file_is_mounted(site: Site) -> None:
    for port in site.ports:
        mounts = site.inspect(site.container(port))["Mounts"]
        sources = {mount["Source"] for mount in mounts if mount["Type"] == "bind"}
        assert sources == {site.dev.run("readlink", "--canonicalize", ENVIRONMENT_FILE).strip()}
        assert not any(mount["RW"] for mount in mounts if mount["Type"] == "bind")


def test_backend_listens_on_loopback_only(site: Site) -> None:
    listening = site.dev.run("ss", "--listening", "--tcp", "--numeric", "--no-header")
    addresses = {line.split()[3] for line in listening.splitlines()}
    for port in site.ports:
        assert {it for it in addresses if it.endswith(f":{port}")} == {f"127.0.0.1:{port}"}
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((site.dev.address, port), timeout=5)


def test_secret_files_are_readable_by_root_and_the_service_only(site: Site) -> None:
    file = site.dev.host.file(ENVIRONMENT_FILE)
    assert (file.user, file.group, oct(file.mode)) == ("root", "agui", "0o640")
    secrets = site.dev.host.file("/etc/ag-ui/secrets")
    assert (secrets.user, oct(secrets.mode)) == ("root", "0o700")
    key = site.dev.host.file("/etc/ag-ui/tls/server.key")
    assert key.mode & 0o077 == 0


def test_database_user_cannot_alter_tables_or_the_audit_log(site: Site) -> None:
    user = urlsplit(site.settings["DATABASE_URL"]).username
    forbidden = "UPDATE, DELETE, TRUNCATE, TRIGGER, REFERENCES"
    assert site.sql(f"SELECT has_table_privilege('{user}', 'audit_log', 'INSERT')") == ["t"]
    assert site.sql(f"SELECT has_table_privilege('{user}', 'audit_log', '{forbidden}')") == ["f"]
    owners = site.sql("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'")
    assert owners == ["shield_owner"]
    assert site.sql(f"SELECT pg_has_role('{user}', 'shield_owner', 'MEMBER')") == ["f"]


def test_password_of_the_table_owner_is_not_on_the_host(site: Site) -> None:
    kept = site.dev.run("sh", "-c", "find /etc/ag-ui /var/lib/ag-ui /tmp -type f -exec cat {} +")
    assert "password of PostgreSQL as in its URL" in secrets_in(site, kept)
    assert "password of the tables' owner" not in secrets_in(site, kept)


def encodings(secret: str) -> set[str]:
    """Return the secret as plain text and as escaped JSON."""
    return {secret, json.dumps(secret)[1:-1]}


def secrets_in(site: Site, text: str) -> list[str]:
    """Return the names of the secrets in a text.

    Never the text, which the test report would show.
    """
    return [
        name
        for name, secret in site.secrets.items()
        if any(form in text for form in encodings(secret))
    ]


def test_searched_secrets_exist(site: Site) -> None:
    assert len(site.secrets) >= 4
    assert all(len(secret) >= 12 for secret in site.secrets.values())
    assert secrets_in(site, site.dev.run("cat", ENVIRONMENT_FILE))


def test_no_secret_in_the_journal(site: Site) -> None:
    """Includes logins, failed ones too, and the start of the service."""
    site.ask_for_token("admin@example.com", site.admin_password + "x")
    site.ask_for_token(site.admin_password, "a password typed into the wrong field")
    journal = site.dev.run("journalctl", "--no-pager", "--output=cat", "--all")
    assert "ag_ui" in journal or "ag-ui" in journal
    assert secrets_in(site, journal) == []


def test_no_secret_in_the_journal_of_the_datastores(site: Site) -> None:
    """The deployment created the database roles there and logged in as both."""
    journal = site.datastores.run("journalctl", "--no-pager", "--output=cat", "--all")
    assert "ansible" in journal
    assert secrets_in(site, journal) == []


def test_no_secret_in_the_logs_of_the_datastores(site: Site) -> None:
    logs = site.datastores.run("sh", "-c", "cat /var/log/postgresql/*.log /var/log/redis/*.log")
    assert logs
    assert secrets_in(site, logs) == []


def test_no_secret_in_the_logs_of_the_proxy(site: Site) -> None:
    request(site.proxy, "GET", "/events?access_token=should-not-be-logged")
    logs = site.dev.run("sh", "-c", "cat /var/log/nginx/*.log")
    assert secrets_in(site, logs) == []
    assert "should-not-be-logged" not in logs


def test_no_secret_in_the_image(site: Site) -> None:
    image = site.inspect(site.container(site.ports[0]))["Image"]
    history = site.dev.run("docker", "history", "--no-trunc", "--format", "{{json .}}", image)
    assert secrets_in(site, json.dumps(site.inspect(image)) + history) == []


def test_no_secret_in_docker_inspect(site: Site) -> None:
    for port in site.ports:
        shown = site.dev.run("docker", "inspect", site.container(port))
        assert secrets_in(site, shown) == []


def test_no_secret_in_the_process_list(site: Site) -> None:
    """Checks arguments, and environments where they are readable."""
    for machine in (site.dev, site.datastores):
        arguments = machine.run("sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
        assert secrets_in(site, arguments) == []
    assert secrets_in(site, site.dev.run("ps", "axeww")) == []


def test_no_secret_in_a_response(site: Site) -> None:
    output = "".join(
        request(route, "GET", path).body.decode()
        for route in site.routes
        for path in ("/", "/health", "/docs", "/openapi.json", "/metrics", "/nothing-here")
    )
    assert secrets_in(site, output) == []


def test_proxy_sets_security_headers(site: Site) -> None:
    for path in ("/health", "/nothing-here", "/events"):
        headers = request(site.proxy, "GET", path).headers
        assert "max-age=" in headers["strict-transport-security"]
        assert headers["x-content-type-options"] == "nosniff"
        assert "/" not in headers["server"], "the version is nobody's business"
