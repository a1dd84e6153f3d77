"""What the image build gets, and the check of an archive."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from typing import TYPE_CHECKING

import pytest

from tests.support.ansible_module import run_module
from tests.support.metadata import backend_version
from tests.support.role_templates import ROLE, inventory, render
from tests.support.role_variables import role_variables
from tests.support.site_playbook import REQUIRED_VARIABLES

if TYPE_CHECKING:
    from pathlib import Path


def test_build_gets_the_version_of_the_backend(tmp_path: Path) -> None:
    template = tmp_path / "arguments.j2"
    template.write_text("{{ __ag_ui_build_arguments | to_json }}")
    folder = tmp_path / "rendered"
    folder.mkdir()
    render(folder, str(template), inventory({"alone": {"alone-1": {}}}, REQUIRED_VARIABLES))
    arguments = json.loads((folder / "alone-1").read_text())
    assert arguments["VERSION"] == backend_version()


def packed(root: Path, dest: Path) -> set[str]:
    """Return the names of the files that the build gets of a directory."""
    exclude = role_variables(ROLE)["__ag_ui_context_exclude"]
    arguments = {"path": str(root), "exclude": exclude, "dest": str(dest / "context.tar.gz")}
    run_module("ag_ui_build_context", arguments, dest, {})
    with tarfile.open(dest / "context.tar.gz") as archive:
        return set(archive.getnames())


def test_build_gets_the_built_console_and_not_its_source(tmp_path: Path) -> None:
    root = tmp_path / "backend"
    built = {"Dockerfile", "src/console/a.py", "static/console/index.html", "static/console/a.js"}
    for name in built | {"console/src/main.ts", "console/index.html", "console/node_modules/a.js"}:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    assert packed(root, tmp_path) == built


def test_build_gets_what_the_dockerfile_copies(tmp_path: Path) -> None:
    root = ROLE / "files/backend"
    names = packed(root, tmp_path)
    copied = re.findall(
        r"^COPY (?!--from)(\S+) \./", (root / "Dockerfile").read_text(), re.MULTILINE
    )
    assert {"src", "static"} <= set(copied)
    allowed = set((root / ".dockerignore").read_text().split())
    for path in copied:
        assert any(name == path or name.startswith(f"{path}/") for name in names), path
        assert f"!{path}" in allowed


DIGEST = "9f" * 32


def save(path: Path, mode: str) -> str:
    """Write an archive as docker does; return its SHA-256."""
    manifest = json.dumps([{"Config": f"{DIGEST}.json"}]).encode()
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        entry = tarfile.TarInfo("manifest.json")
        entry.size = len(manifest)
        archive.addfile(entry, io.BytesIO(manifest))
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_archive_is_read_and_checked(tmp_path: Path, mode: str) -> None:
    archive = tmp_path / "image"
    checksum = save(archive, mode)
    for expected in ("", checksum, checksum.upper()):
        arguments = {"path": str(archive), "sha256": expected}
        assert run_module("ag_ui_archive_info", arguments, tmp_path, {})["digest"] == DIGEST


def test_other_archive_than_the_expected_is_refused(tmp_path: Path) -> None:
    checksum = save(tmp_path / "image", "w:gz")
    arguments = {"path": str(tmp_path / "image"), "sha256": "0" * 64}
    done = run_module("ag_ui_archive_info", arguments, tmp_path, {})
    assert done["failed"]
    assert f"has the SHA-256 {checksum} instead of {'0' * 64}" in done["msg"]


def test_truncated_archive_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "image", "w:gz")
    whole = (tmp_path / "image").read_bytes()
    (tmp_path / "image").write_bytes(whole[: len(whole) // 2])
    done = run_module("ag_ui_archive_info", {"path": str(tmp_path / "image")}, tmp_path, {})
    assert done["failed"]
    assert "is not an archive made by" in done["msg"]
