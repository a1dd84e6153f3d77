"""Releases under load: good ones, ones that fail, changed ports, and the way back."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.scenarios.support.deployment import deploy, run
from tests.scenarios.support.experiment import ClientCounts
from tests.scenarios.support.releases import (
    BACK_WITHIN,
    check_second_run_changes_nothing,
    check_succeeded,
    reboot,
    releases,
)
from tests.scenarios.support.request_load import RequestLoad
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.scenarios.support.experiment import ExperimentFactory
    from tests.scenarios.support.site import Account, Site
    from tests.support.playbook import Run

CLIENTS = ClientCounts(all=84, users=7, job=2)
EVENTS_PER_SECOND = 100.0
# About 50 requests per second.
REQUEST_CLIENTS = 3
RELEASES_KEPT = 5
# Makes every DDL statement of a migration fail with this message.
REFUSING_DATABASE = """
CREATE FUNCTION refuse_change() RETURNS event_trigger LANGUAGE plpgsql
AS $$ BEGIN RAISE EXCEPTION 'no changes today'; END $$;
CREATE EVENT TRIGGER refuse_change ON ddl_command_start EXECUTE FUNCTION refuse_change();
"""
ACCEPTING_DATABASE = "DROP EVENT TRIGGER refuse_change; DROP FUNCTION refuse_change();"
FORMER_SCHEMA = """
DROP TABLE later_release; UPDATE alembic_version SET version_num = '{revision}';
"""


@dataclass(frozen=True)
class FailingRelease:
    """A release that must be undone, and the expected words in the error message."""

    name: str
    words: tuple[str, ...]


# Refused by the checks before any instance is switched.
REFUSED = (
    FailingRelease("settings", ("SSE_RETRY_MS: Input should be", "nothing was switched")),
    FailingRelease("migration", ("no changes today", "nothing was switched")),
    FailingRelease("no-start", ("No module named 'src'", "nothing was switched")),
)
UNDONE = (
    FailingRelease(
        "crash", ("did not become healthy: it exited", "RuntimeError: no such start", "was undone")
    ),
    FailingRelease(
        "never-ready",
        ("did not become healthy: draining: this instance is being stopped", "was undone"),
    ),
    FailingRelease("dies", ("did not stay healthy: it exited", "was undone")),
)


def variables_of(name: str, images: dict[str, str]) -> dict[str, object]:
    if name == "settings":
        return {"ag_ui_environment": {"SSE_RETRY_MS": 1}}
    if name == "migration":
        return {"ag_ui_log_level": "DEBUG"}
    variables: dict[str, object] = {"ag_ui_image_source": "registry", "ag_ui_image": images[name]}
    # The test waits for the end of this time.
    return variables | ({"ag_ui_start_timeout": 20} if name == "never-ready" else {})


@contextmanager
def refusing_database(site: Site) -> Iterator[None]:
    site.sql(REFUSING_DATABASE)
    try:
        yield
    finally:
        site.sql(ACCEPTING_DATABASE)


def active_files(site: Site) -> dict[str, str]:
    """Return checksums of the files that systemd and nginx read, and of the active release."""
    files = "/etc/systemd/system/ag-ui* /run/systemd/system.control/ag-ui* /etc/ag-ui/current/*"
    proxy = "/etc/nginx/conf.d/ag-ui.conf /etc/nginx/modules-enabled/90-ag-ui.conf"
    sums = site.dev.run("sh", "-c", f"md5sum {files} {proxy} 2>/dev/null || true")
    return {
        path: digest for digest, _, path in (line.partition("  ") for line in sums.splitlines())
    }


def check_failed(done: Run, release: FailingRelease) -> None:
    assert done.code != 0, done.output
    assert [words for words in release.words if words not in done.message] == [], done.message


@pytest.mark.parametrize("release", REFUSED, ids=lambda release: release.name)
def test_refused_release_changes_nothing_also_after_a_reboot(
    site: Site, inventory: str, images: dict[str, str], release: FailingRelease
) -> None:
    files, running, before = active_files(site), releases(site), site.containers()
    if release.name == "migration":
        with refusing_database(site):
            done = deploy(inventory, variables_of(release.name, images))
    else:
        done = deploy(inventory, variables_of(release.name, images))
    check_failed(done, release)
    assert active_files(site) == files
    assert site.containers() == before
    if release is REFUSED[-1]:
        reboot(site)
        assert releases(site) == running


@pytest.mark.parametrize("release", UNDONE, ids=lambda release: release.name)
def test_failing_release_is_undone_under_load(  # noqa: PLR0913, PLR0917 - fixtures, by name
    site: Site,
    inventory: str,
    admin: Account,
    images: dict[str, str],
    under_load: ExperimentFactory,
    release: FailingRelease,
) -> None:
    files, running = active_files(site), releases(site)
    first, *others = site.ports
    before = site.containers()
    with (
        under_load(
            f"release_{release.name}",
            restarts={f"instance {first}"},
            cuts_streams=True,
            per_second=EVENTS_PER_SECOND,
            clients=CLIENTS,
        ),
        RequestLoad(site.proxy, "/auth/me", admin.token, clients=REQUEST_CLIENTS) as load,
    ):
        done = deploy(inventory, variables_of(release.name, images))
    check_failed(done, release)
    assert load.failed == []
    assert load.answered > 0
    assert active_files(site) == files
    assert releases(site) == running
    for port in others:
        assert site.containers()[site.container(port)] == before[site.container(port)]
    site.kill(first)
    eventually(lambda: site.is_ready(first), "the killed instance", within=BACK_WITHIN)
    assert releases(site) == running


def test_release_with_a_later_schema_and_the_way_back_fail_no_request(
    site: Site,
    inventory: str,
    admin: Account,
    images: dict[str, str],
    under_load: ExperimentFactory,
) -> None:
    [revision] = site.sql("SELECT version_num FROM alembic_version")
    [former] = set(releases(site).values())
    variables = variables_of("later-schema", images) | {"ag_ui_log_level": "WARNING"}
    instances = {f"instance {port}" for port in site.ports}
    with (
        under_load(
            "release_and_rollback",
            restarts=instances,
            cuts_streams=True,
            per_second=EVENTS_PER_SECOND,
            clients=CLIENTS,
        ),
        RequestLoad(site.proxy, "/auth/me", admin.token, clients=REQUEST_CLIENTS) as load,
    ):
        check_succeeded(deploy(inventory, variables))
        [later] = set(releases(site).values())
        assert later != former
        assert site.sql("SELECT version_num FROM alembic_version") == ["9999"]
        assert load.failed == []
        check_second_run_changes_nothing(inventory, variables)
        check_succeeded(run(inventory, "playbooks/rollback.yml"))
        # The former release works with the later schema.
        assert set(releases(site).values()) == {former}
    assert load.failed == []
    assert load.answered > 0
    assert site.dev.run("readlink", "/etc/ag-ui/previous").strip() == f"releases/{later}"
    site.sql(FORMER_SCHEMA.format(revision=revision))
    check_second_run_changes_nothing(inventory, {})


def test_rollback_to_an_unknown_release_changes_nothing(site: Site, inventory: str) -> None:
    running = releases(site)
    done = run(inventory, "playbooks/rollback.yml", {"ag_ui_release": "0123"})
    assert done.code != 0
    assert "Release 0123 was never deployed to" in done.message
    assert releases(site) == running


def test_change_of_ports_and_address_fails_no_request(
    site: Site, inventory: str, admin: Account, under_load: ExperimentFactory
) -> None:
    before = {site.container(port) for port in site.ports}
    moved = [port + 2 for port in site.ports]
    variables = {"ag_ui_bind_address": site.dev.address, "ag_ui_backend_ports": moved}
    with (
        under_load(
            "change_of_ports",
            restarts={f"instance {port}" for port in site.ports},
            cuts_streams=True,
            per_second=EVENTS_PER_SECOND,
            clients=CLIENTS,
        ),
        RequestLoad(site.proxy, "/auth/me", admin.token, clients=REQUEST_CLIENTS) as load,
    ):
        check_succeeded(deploy(inventory, variables))
        assert set(site.containers()) == {site.container(port) for port in moved}
        listening = site.dev.run("ss", "--listening", "--tcp", "--numeric", "--no-header")
        for port in moved:
            assert f"{site.dev.address}:{port}" in listening
        # The former release has other ports.
        check_succeeded(run(inventory, "playbooks/rollback.yml"))
        assert set(site.containers()) == before
    assert load.failed == []
    assert load.answered > 0
    units = site.dev.run(
        "sh", "-c", "ls /etc/systemd/system /etc/systemd/system/ag-ui.target.wants"
    )
    assert not [port for port in moved if site.unit(port) in units]
    check_second_run_changes_nothing(inventory, {})


def test_former_releases_and_their_images_are_removed(
    site: Site, inventory: str, images: dict[str, str]
) -> None:
    check_succeeded(deploy(inventory, {"ag_ui_releases_kept": 2}))
    kept = site.dev.run("ls", "/etc/ag-ui/releases").split()
    assert len(kept) == 2
    [current] = set(releases(site).values())
    assert site.dev.run("readlink", "/etc/ag-ui/current").strip() == f"releases/{current}"
    named = site.dev.run("sh", "-c", "sed -n s/^AG_UI_IMAGE=//p /etc/ag-ui/releases/*/release.env")
    existing = site.dev.run("docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}").split()
    own = {image for image in existing if image.startswith("shield-ag-ui-backend:")}
    assert own == {name for name in named.split() if name.startswith("shield-ag-ui-backend:")}
    # A release from a registry needs no base image.
    assert len([image for image in existing if image.startswith("shield-ag-ui-base:")]) <= 1
    # Images of other owners are kept.
    assert set(images.values()) <= set(existing)
