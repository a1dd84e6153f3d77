"""Versions and licences agree wherever they are stated; the backend's tests use its own version."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.support.metadata import BACKEND, TOP, backend_version

LICENCE = "Apache-2.0"


def project() -> dict[str, Any]:
    return tomllib.loads((TOP / "pyproject.toml").read_text())


def galaxy() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((TOP / "galaxy.yml").read_text())
    return loaded


def test_package_has_the_version_of_the_backend() -> None:
    found = project()
    assert "version" not in found["project"]
    assert found["project"]["dynamic"] == ["version"]
    setuptools = found["tool"]["setuptools"]
    assert setuptools["dynamic"]["version"] == {"attr": "src.__version__"}
    assert TOP / setuptools["package-dir"][""] == BACKEND


def test_collection_has_the_version_of_the_backend() -> None:
    """The archive is built from galaxy.yml unchanged, so the version is repeated there."""
    assert galaxy()["version"] == backend_version()


def test_changelog_begins_with_the_version_of_the_backend() -> None:
    headings = re.findall(r"^## \[(.+?)\]", (TOP / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert next(one for one in headings if one != "Unreleased") == backend_version()


def test_image_labels_come_from_build_arguments() -> None:
    text = (BACKEND / "Dockerfile").read_text()
    _, _, runtime = text.partition(" AS runtime\n")
    assert "\nARG VERSION\n" in runtime
    assert "org.opencontainers.image.version=${VERSION}" in runtime
    assert f"org.opencontainers.image.licenses={LICENCE}\n" in runtime


def test_licence_file_matches_the_metadata() -> None:
    text = (TOP / "LICENSE").read_text()
    assert re.match(r"\s+Apache License\n\s+Version 2\.0, January 2004\n", text)
    assert project()["project"]["license"] == LICENCE
    assert galaxy()["license"] == [LICENCE]


@pytest.mark.parametrize("role", sorted(path.name for path in TOP.glob("roles/*")))
def test_each_role_names_the_licence(role: str) -> None:
    meta = yaml.safe_load((TOP / "roles" / role / "meta/main.yml").read_text())
    assert meta["galaxy_info"]["license"] == LICENCE
