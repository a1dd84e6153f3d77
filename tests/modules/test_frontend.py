"""Versions of a frontend are installed beside one another, and removed when nothing needs them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml  # type: ignore[import-untyped]

from tests.support.ansible_module import run_module
from tests.support.playbook import TOP

if TYPE_CHECKING:
    from pathlib import Path

VARIABLES = yaml.safe_load(
    (TOP / "roles/ag_ui_deployment/vars/main/frontend.yml").read_text(encoding="utf-8")
)
COMMON = "assets/common-Ab3dEf9h.js"


class Target:
    """A folder in place of the directory of the versions."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.versions = folder / "state/frontend"
        self.site = folder / "site.conf"
        self.site.touch()

    def pack(self, files: dict[str, str]) -> str:
        """Pack a frontend; return its version."""
        source = self.folder / "dist"
        source.mkdir(exist_ok=True)
        for path in source.rglob("*"):
            if path.is_file():
                path.unlink()
        for name, content in ({"index.html": "a page"} | files).items():
            (source / name).parent.mkdir(exist_ok=True)
            (source / name).write_text(content)
        options = {"path": str(source), "dest": str(self.folder / "packed.tar.gz")}
        version: str = run_module("ag_ui_frontend_source", options, self.folder, {})["version"]
        return version

    def install(self, version: str, **options: Any) -> dict[str, Any]:
        given = {
            "directory": str(self.versions),
            "version": version,
            "src": str(self.folder / "packed.tar.gz"),
            "hashed": VARIABLES["__ag_ui_frontend_hashed"],
            "configurations": [str(self.site), str(self.folder / "releases/*/nginx-site.conf")],
            "keep": 1,
        }
        return run_module("ag_ui_frontend", given | options, self.folder, {})

    def deploy(self, files: dict[str, str], **options: Any) -> str:
        """Install a version, then let nginx use it; return the version."""
        version = self.pack(files)
        result = self.install(version, **options)
        assert not result.get("failed"), result
        self.site.write_text(f"try_files /{version}$uri;")
        return version

    def release(self, version: str) -> Path:
        """Record a release whose site has this version; return its file."""
        site = self.folder / "releases" / version / "nginx-site.conf"
        site.parent.mkdir(parents=True)
        site.write_text(f"try_files /{version}$uri;")
        return site

    def names(self) -> set[str]:
        return {path.name for path in self.versions.iterdir()}

    def pooled(self) -> set[str]:
        pool = self.versions / "hashed"
        return {str(path.relative_to(pool)) for path in pool.rglob("*") if path.is_file()}


def test_version_is_installed_once(tmp_path: Path) -> None:
    target = Target(tmp_path)
    version = target.pack({COMMON: "1", "favicon.ico": "x"})
    assert target.install(version, _ansible_check_mode=True)["changed"]
    assert not target.versions.exists()
    assert target.install(version)["changed"]
    assert target.names() == {version, "hashed"}
    assert (target.versions / version / COMMON).read_text() == "1"
    assert target.pooled() == {COMMON}
    before = {path: path.stat().st_ctime_ns for path in target.versions.rglob("*")}
    (tmp_path / "packed.tar.gz").unlink()
    assert not target.install(version)["changed"]
    assert {path: path.stat().st_ctime_ns for path in target.versions.rglob("*")} == before


def test_nginx_may_read_the_files_whatever_the_umask(tmp_path: Path) -> None:
    target = Target(tmp_path)
    (tmp_path / "sitecustomize.py").write_text("import os\nos.umask(0o077)\n")
    version = target.pack({COMMON: "1"})
    options = {"version": version, "src": str(tmp_path / "packed.tar.gz"), "hashed": "assets/"}
    options["directory"] = str(target.versions)
    run_module("ag_ui_frontend", options, tmp_path, {"PYTHONPATH": str(tmp_path)})
    modes = {path.stat().st_mode & 0o777 for path in target.versions.rglob("*") if path.is_dir()}
    assert modes == {0o755}
    modes = {path.stat().st_mode & 0o777 for path in target.versions.rglob("*") if path.is_file()}
    assert modes == {0o644}


def test_time_of_a_file_depends_on_its_content(tmp_path: Path) -> None:
    """The ETag of nginx consists of time and size, so an index of the same size must have another time."""
    target = Target(tmp_path)
    first = target.deploy({"index.html": "one", "same.css": "s"})
    second = target.deploy({"index.html": "two", "same.css": "s"})
    page, same = (
        [int((target.versions / version / name).stat().st_mtime) for version in (first, second)]
        for name in ("index.html", "same.css")
    )
    assert page[0] != page[1]
    assert same[0] == same[1]


def test_files_of_former_versions_remain_as_long_as_the_version(tmp_path: Path) -> None:
    target = Target(tmp_path)
    first = target.deploy({COMMON: "same", "assets/a-Ab3dEf91.js": "1"})
    second = target.deploy({COMMON: "same", "assets/a-Ab3dEf92.js": "2"})
    assert target.pooled() == {COMMON, "assets/a-Ab3dEf91.js", "assets/a-Ab3dEf92.js"}
    third = target.deploy({COMMON: "same", "assets/a-Ab3dEf93.js": "3"})
    # nginx used the second one until now; pages of it may be open.
    assert target.names() == {second, third, "hashed"}
    assert target.pooled() == {COMMON, "assets/a-Ab3dEf92.js", "assets/a-Ab3dEf93.js"}
    assert first not in target.names()


def test_version_of_a_release_remains(tmp_path: Path) -> None:
    target = Target(tmp_path)
    first = target.deploy({COMMON: "1"})
    site = target.release(first)
    versions = [target.deploy({"a.css": str(number)}) for number in range(3)]
    assert target.names() == {first, *versions[-2:], "hashed"}
    site.unlink()
    last = target.deploy({"a.css": "last"})
    assert target.names() == {versions[-1], last, "hashed"}
    assert target.pooled() == set()


def test_newest_versions_remain(tmp_path: Path) -> None:
    target = Target(tmp_path)
    versions = [target.deploy({"a.css": str(number)}, keep=3) for number in range(5)]
    assert target.names() == set(versions[-3:])


def test_remains_of_an_interrupted_run_are_removed(tmp_path: Path) -> None:
    target = Target(tmp_path)
    version = target.pack({COMMON: "1"})
    for name in (f".new-{version}", ".new-0123456789abcdef"):
        (target.versions / name).mkdir(parents=True)
        (target.versions / name / "index.html").write_text("half")
    target.install(version)
    assert target.names() == {version, "hashed"}
    assert (target.versions / version / "index.html").read_text() == "a page"


def test_changed_frontend_and_damaged_archive_are_not_installed(tmp_path: Path) -> None:
    target = Target(tmp_path)
    version = target.pack({})
    target.pack({"index.html": "another"})
    result = target.install(version)
    assert "has changed since it was checked" in result["msg"]
    (tmp_path / "packed.tar.gz").write_bytes(b"damaged")
    result = target.install(version)
    assert result["failed"]
    assert not target.versions.exists()


def test_changed_content_of_a_name_with_a_digest_causes_a_warning(tmp_path: Path) -> None:
    target = Target(tmp_path)
    target.deploy({COMMON: "1", "a.css": "1"})
    version = target.pack({COMMON: "2", "a.css": "2"})
    result = target.install(version)
    [warning] = result["warnings"]
    assert str(warning).count(COMMON) == 1
    assert "browsers keep files with such names for a year" in str(warning)
    assert (target.versions / "hashed" / COMMON).read_text() == "2"
