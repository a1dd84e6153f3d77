"""Images of releases that fail, each in its own way, and of a good one with a later schema."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.scenarios.support.site import Site

REPOSITORY = "ag-ui-test-release"
LATER_REVISION = "9999"
_MIGRATION = """revision = "9999"
down_revision = "{newest}"
branch_labels = depends_on = None


def upgrade():
    from alembic import op
    op.execute("CREATE TABLE later_release (id int)")
"""
# Commands that change the running image.
_STEPS = {
    "no-start": "RUN rm -r /app/src",
    "crash": (
        "RUN sed -i 's/^        services.start()/        raise RuntimeError(\"no such start\")/' "
        "/app/src/main.py && grep 'no such start' /app/src/main.py"
    ),
    "never-ready": (
        "RUN sed -i 's/if self._hub.draining:/if True:/' /app/src/services/operations/readiness.py "
        "&& grep 'if True:' /app/src/services/operations/readiness.py"
    ),
    "dies": (
        "RUN sed -i 's/^        services.start()/        services.start(); "
        'asyncio.get_running_loop().call_later(15, __import__("os")._exit, 3)/\' '
        "/app/src/main.py && grep _exit /app/src/main.py"
    ),
    "later-schema": "COPY later.py /app/migrations/versions/9999_later.py",
}


@pytest.fixture(scope="session")
def images(site: Site) -> Iterator[dict[str, str]]:
    """Build images that the role has neither built nor pulled; yield their names."""
    image = site.inspect(site.container(site.ports[0]))["Config"]["Image"]
    [newest] = site.sql("SELECT version_num FROM alembic_version")
    site.dev.run("mkdir", "-p", "/root/images")
    site.dev.run(
        "sh", "-c", "cat >/root/images/later.py", send=_MIGRATION.replace("{newest}", newest)
    )
    names = {name: f"{REPOSITORY}:{name}" for name in _STEPS}
    for name, step in _STEPS.items():
        recipe = f"FROM {image}\nUSER 0\n{step}\nUSER 1001:1001\n"
        site.dev.run("sh", "-c", "cat >/root/images/Dockerfile", send=recipe)
        site.dev.run("docker", "build", "--tag", names[name], "/root/images")
    yield names
    site.dev.run("docker", "image", "rm", "--force", *names.values())
