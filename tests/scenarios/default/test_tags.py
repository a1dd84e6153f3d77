"""Parts of a deployment that operators repeat with --tags."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.scenarios.support.deployment import deploy

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.scenarios.support.site import Site

SITE_CONFIG = "/etc/nginx/conf.d/ag-ui.conf"
RATE = 123
RATE_LINE = f"rate={RATE}r/s;"
# An image that cannot be pulled.
OTHER_IMAGE = {"ag_ui_image_source": "registry", "ag_ui_image": "registry.example/backend:1"}


def images(site: Site) -> set[str]:
    return {site.inspect(site.container(port))["Config"]["Image"] for port in site.ports}


def environments(site: Site) -> str:
    return site.dev.run("cat", "/etc/ag-ui/current/backend.env")


@pytest.fixture(scope="module")
def deployed(site: Site, inventory: str) -> Iterator[Mapping[str, str]]:
    """Yield the containers of the site, and deploy it again at the end."""
    yield site.containers()
    done = deploy(inventory, tags="release")
    assert done.code == 0, done.output
    assert RATE_LINE not in site.dev.run("cat", SITE_CONFIG)
    assert "LOG_LEVEL='INFO'" in environments(site)


def test_verify_changes_nothing(site: Site, inventory: str, deployed: Mapping[str, str]) -> None:
    done = deploy(inventory, {"ag_ui_log_level": "DEBUG"}, tags="verify")
    assert done.code == 0, done.output
    assert set(done.changes.values()) == {0}
    assert [task for task in done.tasks if "Verify | " in task]
    assert not [task for task in done.tasks if "Preflight | " in task]
    assert site.containers() == deployed


def test_proxy_leaves_the_instances_alone(
    site: Site, inventory: str, deployed: Mapping[str, str]
) -> None:
    variables = {"ag_ui_request_rate": RATE, "ag_ui_log_level": "DEBUG"}
    done = deploy(inventory, variables, tags="proxy")
    assert done.code == 0, done.output
    assert RATE_LINE in site.dev.run("cat", SITE_CONFIG)
    assert site.containers() == deployed


def test_config_keeps_the_image(site: Site, inventory: str, deployed: Mapping[str, str]) -> None:
    before = images(site)
    variables = {"ag_ui_request_rate": RATE, "ag_ui_log_level": "DEBUG", **OTHER_IMAGE}
    done = deploy(inventory, variables, tags="config")
    assert done.code == 0, done.output
    assert "LOG_LEVEL='DEBUG'" in environments(site)
    assert site.containers().keys() == deployed.keys()
    assert not set(site.containers().values()) & set(deployed.values())
    assert images(site) == before
    site.wait_until_healthy()
