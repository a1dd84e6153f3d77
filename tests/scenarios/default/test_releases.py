"""A release goes live if it is healthy; a refused one does not change what a reboot starts."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from tests.scenarios.support.deployment import deploy
from tests.scenarios.support.request_load import RequestLoad
from tests.scenarios.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.scenarios.support.site import Account, Site

RELEASES_KEPT = 3
# Allows for a machine that is busy with other work.
BACK_WITHIN = 120.0
# Images that these tests build on top of the running one.
BROKEN_IMAGE = "ag-ui-broken"
BROKEN = {
    "no-start": "RUN rm -r /app/src",
    "crash": (
        "RUN sed -i 's/^        services.start()/        raise RuntimeError(\"no such start\")/' "
        "/app/src/main.py && grep 'no such start' /app/src/main.py"
    ),
    "never-ready": (
        "RUN sed -i 's/if self._hub.draining:/if True:/' /app/src/services/operations/readiness.py "
        "&& grep 'if True:' /app/src/services/operations/readiness.py"
    ),
}
# Makes every DDL statement of a migration fail with this message.
REFUSING_DATABASE = """
CREATE FUNCTION refuse_change() RETURNS event_trigger LANGUAGE plpgsql
AS $$ BEGIN RAISE EXCEPTION 'no changes today'; END $$;
CREATE EVENT TRIGGER refuse_change ON ddl_command_start EXECUTE FUNCTION refuse_change();
"""
ACCEPTING_DATABASE = "DROP EVENT TRIGGER refuse_change; DROP FUNCTION refuse_change();"


@dataclass(frozen=True)
class RefusedRelease:
    """A release that must be refused, and the expected words in the error message."""

    name: str
    words: tuple[str, ...]
    variables: dict[str, object] = field(default_factory=dict)


def broken(name: str) -> dict[str, object]:
    image = f"{BROKEN_IMAGE}:{name}"
    return {"ag_ui_image_source": "registry", "ag_ui_image": image, "ag_ui_start_timeout": 20}


REFUSED_RELEASES = [
    RefusedRelease(
        "settings", ("SSE_RETRY_MS: Input should be",), {"ag_ui_environment": {"SSE_RETRY_MS": 1}}
    ),
    RefusedRelease("migration", ("no changes today",), {"ag_ui_log_level": "DEBUG"}),
    RefusedRelease("no-start", ("No module named 'src'",), broken("no-start")),
    RefusedRelease(
        "crash",
        ("did not become healthy: it exited", "RuntimeError: no such start"),
        broken("crash"),
    ),
    RefusedRelease(
        "never-ready",
        ("did not become healthy: draining: this instance is being stopped",),
        broken("never-ready"),
    ),
]


@pytest.fixture(scope="module")
def broken_images(site: Site) -> Iterator[set[str]]:
    """Build images that the role has neither built nor pulled; yield their names."""
    image = site.inspect(site.container(site.ports[0]))["Config"]["Image"]
    names = {name: f"{BROKEN_IMAGE}:{name}" for name in BROKEN}
    for name, step in BROKEN.items():
        recipe = f"FROM {image}\nUSER 0\n{step}\nUSER 1001:1001\n"
        site.dev.run("docker", "build", "--tag", names[name], "-", send=recipe)
    yield set(names.values())
    site.dev.run("docker", "image", "rm", *names.values())


@contextmanager
def refusing_database(site: Site) -> Iterator[None]:
    site.sql(REFUSING_DATABASE)
    try:
        yield
    finally:
        site.sql(ACCEPTING_DATABASE)


def active_files(site: Site) -> dict[str, str]:
    """Return checksums of the unit files, drop-ins and settings of the active release, by file."""
    files = "/etc/systemd/system/ag-ui* /run/systemd/system.control/ag-ui* /etc/ag-ui/current/*"
    sums = site.dev.run("sh", "-c", f"md5sum {files} 2>/dev/null || true")
    return {
        path: digest for digest, _, path in (line.partition("  ") for line in sums.splitlines())
    }


def releases(site: Site) -> dict[str, str]:
    """Return the release of each running instance."""
    return {
        name: str(site.inspect(name)["Config"]["Labels"]["ag-ui.release"])
        for name in site.containers()
    }


@pytest.mark.usefixtures("broken_images")
@pytest.mark.parametrize("refused", REFUSED_RELEASES, ids=lambda refused: refused.name)
def test_refused_release_is_not_started_by_a_restart_or_reboot(
    site: Site, inventory: str, refused: RefusedRelease
) -> None:
    files, running, first, *others = active_files(site), releases(site), *site.ports
    before = site.containers()
    if refused.name == "migration":
        with refusing_database(site):
            done = deploy(inventory, refused.variables)
    else:
        done = deploy(inventory, refused.variables)
    assert done.code != 0, done.output
    assert [words for words in refused.words if words not in done.message] == [], done.output
    assert active_files(site) == files
    for port in others:
        assert site.containers()[site.container(port)] == before[site.container(port)]
    assert releases(site) == running

    site.kill(first)
    eventually(lambda: site.is_ready(first), "the killed instance", within=BACK_WITHIN)
    assert releases(site) == running

    subprocess.run(["docker", "restart", "--time", "30", site.dev.name], check=True, timeout=120)
    site.wait_until_healthy(within=BACK_WITHIN)
    assert releases(site) == running


def test_change_of_ports_and_address_fails_no_request(
    site: Site, inventory: str, user: Account
) -> None:
    before = {site.container(port) for port in site.ports}
    moved = [port + 2 for port in site.ports]
    variables = {"ag_ui_bind_address": site.dev.address, "ag_ui_backend_ports": moved}
    try:
        with RequestLoad(site.proxy, "/auth/me", user.token) as load:
            done = deploy(inventory, variables)
        assert done.code == 0, done.output
        assert load.failed == []
        assert load.answered > 0
        assert set(site.containers()) == {site.container(port) for port in moved}
        listening = site.dev.run("ss", "--listening", "--tcp", "--numeric", "--no-header")
        for port in moved:
            assert f"{site.dev.address}:{port}" in listening
        units = site.dev.run(
            "sh", "-c", "ls /etc/systemd/system /etc/systemd/system/ag-ui.target.wants"
        )
        assert not [port for port in site.ports if site.unit(port) in units]
    finally:
        with RequestLoad(site.proxy, "/auth/me", user.token) as load:
            done = deploy(inventory)
    assert done.code == 0, done.output
    assert load.failed == []
    assert set(site.containers()) == before
    site.wait_until_healthy()


def test_former_releases_and_their_images_are_removed(site: Site, broken_images: set[str]) -> None:
    """The previous tests have deployed more releases than are kept."""
    kept = site.dev.run("ls", "/etc/ag-ui/releases").split()
    assert 1 < len(kept) <= RELEASES_KEPT
    [current] = set(releases(site).values())
    assert site.dev.run("readlink", "/etc/ag-ui/current").strip() == f"releases/{current}"
    named = site.dev.run("sh", "-c", "sed -n s/^AG_UI_IMAGE=//p /etc/ag-ui/releases/*/release.env")
    images = site.dev.run("docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}").split()
    own = {image for image in images if image.startswith("shield-ag-ui-backend:")}
    assert own == set(named.split())
    assert len([image for image in images if image.startswith("shield-ag-ui-base:")]) == 1
    # Images of other owners are kept.
    assert broken_images <= set(images)
