"""A site without internet, with a frontend, and another site on its host: deployment, removal without a trace, and again."""

from __future__ import annotations

import json
import re
import shutil
import ssl
import subprocess
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Final
from urllib.request import Request, urlopen

import pytest

from tests.scenarios.support.http import TIMEOUT, Proxy, request
from tests.shield import Publisher, query_job
from tests.support.playbook import TOP, run_playbook
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.scenarios.support.site import Account, Site
    from tests.support.playbook import Run

RECORDS: Final = TOP / ".cache/molecule/sites"
FRONTEND: Final = TOP / "molecule/sites/frontend"
SCRIPT: Final = "/assets/index-DiwrgTda.js"
RECORD_SCRIPT: Final = Path(__file__).with_name("host_record.py")
INTRANET: Final = "intranet.example"
INTRANET_PAGE: Final = b"the intranet\n"
CUT_OFF_SECONDS: Final = 5
"""Seconds after which a connection that is not refused counts as cut off."""
STORED_WITHIN: Final = 30.0
PLAYBOOK_SECONDS: Final = 600
SECRETS: Final = "/etc/ag-ui/secrets"


def record(site: Site) -> dict[str, Any]:
    """Return the state of the target."""
    printed = site.dev.run("python3", "-", send=RECORD_SCRIPT.read_text())
    found: dict[str, Any] = json.loads(printed)
    return found


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Describe what differs between two records."""
    changed = [
        f"{path}: {before['files'].get(path)} -> {after['files'].get(path)}"
        for path in sorted(before["files"].keys() | after["files"].keys())
        if before["files"].get(path) != after["files"].get(path)
    ]
    for name in before.keys() - {"files"}:
        changed += [f"{name}: missing {one}" for one in before[name] if one not in after[name]]
        changed += [f"{name}: added {one}" for one in after[name] if one not in before[name]]
    return changed


def page(site: Site, host: str) -> bytes:
    """Return the page that the target has for a host over HTTP."""
    asked = Request(f"http://{site.dev.address}/", headers={"Host": host})
    with urlopen(asked, timeout=TIMEOUT) as answer:  # noqa: S310 - a fixed scheme
        text: bytes = answer.read()
    return text


def assert_intranet_is_served(site: Site) -> None:
    """Assert that the other site answers over HTTPS, with its own certificate, and over HTTP."""
    certificate = site.dev.run("cat", "/etc/nginx/intranet/server.crt")
    context = ssl.create_default_context(cadata=certificate)
    answer = request(Proxy(site.dev.address, INTRANET, context), "GET", "/")
    assert (answer.status, answer.body) == (200, INTRANET_PAGE)
    assert page(site, INTRANET) == INTRANET_PAGE


def assert_default_site_is_served(site: Site) -> None:
    assert b"Welcome to nginx" in page(site, "other.example")


def assert_frontend_is_served(site: Site) -> None:
    """Assert that the site has the files of the frontend, and the backend its own paths."""
    for path, name, cached in (
        ("/", "/index.html", "no-cache"),
        ("/jobs/1", "/index.html", "no-cache"),
        (SCRIPT, SCRIPT, "public, max-age=31536000, immutable"),
    ):
        answer = request(site.proxy, "GET", path)
        assert (answer.status, answer.headers["cache-control"]) == (200, cached), path
        assert answer.body == Path(f"{FRONTEND}{name}").read_bytes(), path
    own = {
        "/health": 200,
        "/console/": 200,
        "/docs": 200,
        "/api/jobs": 401,
        "/assets/other.js": 404,
    }
    assert {path: request(site.proxy, "GET", path).status for path in own} == own


def uninstall(inventory: str, **variables: bool) -> Run:
    """Run the playbook on the target, as an operator does."""
    chosen = {"ag_ui_uninstall": True} | variables
    return run_playbook(
        *("--inventory", inventory, "--extra-vars", json.dumps(chosen), "playbooks/uninstall.yml"),
        timeout=PLAYBOOK_SECONDS,
    )


@pytest.fixture(scope="module")
def redis_url(site: Site) -> str:
    """The URL of the site's Redis, with the certificate of its authority and without its name."""
    login = site.settings["REDIS_URL"].removeprefix("rediss://").rpartition("@")[0]
    options = f"ssl_ca_certs={RECORDS}/site-ca.crt&ssl_check_hostname=false"
    return f"rediss://{login}@172.30.79.12:6379/0?{options}"


def address(container: str, network: str) -> str:
    """Return the address of a container in a network."""
    template = f'{{{{(index .NetworkSettings.Networks "{network}").IPAddress}}}}'
    command = ["docker", "inspect", "--format", template, container]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_target_reaches_only_the_site(site: Site) -> None:
    """The host with Redis is also in the network with internet."""
    connect = (
        f"import socket, sys; socket.create_connection((sys.argv[1], 6379), {CUT_OFF_SECONDS})"
    )
    assert site.dev.host.run("python3 -c %s hx-sqldb-server", connect).rc == 0
    outside = address("ag-ui-sites-sqldb-server", "ag-ui-sites-internet")
    for target in (outside, "deb.debian.org"):
        tried = site.dev.host.run("python3 -c %s %s", connect, target)
        assert tried.rc != 0
        assert re.search("timed out|unreachable|name resolution|not known", tried.stderr)


def test_deployment_needs_neither_root_nor_programs_in_tmp(site: Site) -> None:
    assert "noexec" in site.dev.run("findmnt", "--noheadings", "--output=OPTIONS", "/tmp")  # noqa: S108
    tried = site.dev.host.run("runuser -u deployer -- sudo -n true")
    assert tried.rc != 0
    assert "password is required" in tried.stderr


def test_service_works_with_the_stores_of_the_site(
    site: Site, admin: Account, redis_url: str
) -> None:
    assert site.settings["REDIS_URL"].startswith("rediss://shield-ag-ui:")
    assert site.settings["DATABASE_URL"].endswith("sslmode=verify-full")
    job = query_job(Random(1))
    publisher = Publisher(redis_url)
    for event in job:
        publisher.publish(event)
    listed = eventually(
        lambda: [
            one
            for one in request(site.proxy, "GET", "/api/jobs", token=admin.token).json()["items"]
            if one["id"] == job[0].job_id
        ],
        "the job in PostgreSQL",
        within=STORED_WITHIN,
    )
    assert listed


def test_image_is_that_of_the_release(site: Site) -> None:
    [bill] = [json.loads(path.read_text()) for path in (TOP / "dist").glob("*.cdx.json")]
    [digest] = [one["content"] for one in bill["metadata"]["component"]["hashes"]]
    for port in site.ports:
        assert site.inspect(site.container(port))["Image"] == f"sha256:{digest}"


def test_frontend_is_served_beside_the_backend(site: Site) -> None:
    assert_frontend_is_served(site)


def test_other_site_of_the_target_is_unchanged(site: Site) -> None:
    assert_intranet_is_served(site)
    before = json.loads((RECORDS / "before.json").read_text())["files"]
    after = record(site)["files"]
    changed = {path for path in before if before[path] != after.get(path)}
    accounts = {f"/etc/{name}" for name in ("passwd", "group", "shadow", "gshadow")}
    proxy = {"/etc/nginx/nginx.conf", "/etc/nginx/sites-enabled/default"}
    assert changed - accounts == proxy


def test_uninstall_keeps_secrets_and_packages(site: Site, inventory: str) -> None:
    secrets = site.dev.run("sh", "-c", f"cat {SECRETS}/*")
    done = uninstall(inventory)
    assert done.code == 0, done.output
    assert site.dev.run("sh", "-c", f"cat {SECRETS}/*") == secrets
    assert site.dev.run("curl", "--version")
    again = uninstall(inventory)
    assert (again.code, set(again.changes.values())) == (0, {0}), again.output


def test_uninstall_leaves_the_host_as_it_was(site: Site, inventory: str) -> None:
    processes = site.dev.run("systemctl", "show", "--property=MainPID", "nginx", "docker")
    done = uninstall(inventory, ag_ui_uninstall_purge=True, ag_ui_uninstall_packages=True)
    assert done.code == 0, done.output
    before = json.loads((RECORDS / "before.json").read_text())
    assert differences(before, record(site)) == []
    running = site.dev.run("systemctl", "show", "--property=MainPID", "nginx", "docker")
    assert running == processes
    # The deployment has installed it.
    assert site.dev.host.run("command -v curl").rc != 0
    assert_intranet_is_served(site)
    assert_default_site_is_served(site)


def test_site_can_be_deployed_again_beside_the_default_site(site: Site, inventory: str) -> None:
    """With the variables that script/release has written, as its file says, and an archive of the frontend."""
    # Otherwise the deployment is refused: nginx would use its site as the default server.
    available = "/etc/nginx/sites-available/intranet"
    site.dev.run("sed", "--in-place", "s/443 ssl;/443 ssl default_server;/", available)
    site.dev.systemctl("reload", "nginx")
    [variables] = (TOP / "dist").glob("*.yml")
    # The uninstall has removed the keys; what they signed and encrypted is still in the database.
    further = {
        "ag_ui_default_server": False,
        "ag_ui_allow_key_loss": True,
        "ag_ui_frontend_source": shutil.make_archive(f"{RECORDS}/frontend", "gztar", FRONTEND),
    }
    done = run_playbook(
        *("--inventory", inventory, "--limit", "ag_ui", "--extra-vars", f"@{variables}"),
        *("--extra-vars", json.dumps(further), "site.yml"),
        environment={"PWD": str(TOP)},
        timeout=PLAYBOOK_SECONDS,
    )
    assert done.code == 0, done.output
    # Without the certificate of the former deployment.
    for name in ("certificate", "proxy", "settings"):
        vars(site).pop(name, None)
    site.wait_until_healthy()
    assert site.admin().token
    assert_frontend_is_served(site)
    assert_intranet_is_served(site)
    assert_default_site_is_served(site)
