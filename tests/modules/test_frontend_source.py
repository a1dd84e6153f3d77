"""The files of a frontend are read from a directory or an archive, and checked."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.ansible_module import run_module

if TYPE_CHECKING:
    from pathlib import Path

PAGE = b"<!doctype html><title>A frontend</title>"
FILES = {"index.html": PAGE, "assets/index-DiwrgTda.js": b"export {};\n"}
Contents = dict[str, bytes]


def write(folder: Path, files: Contents) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def tar(path: Path, files: Contents, *entries: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        for entry in entries:
            archive.addfile(entry)
    return path


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry


def zipped(path: Path, files: Contents, links: Contents | None = None) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        for name, content in (links or {}).items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = 0o120777 << 16
            archive.writestr(entry, content)
    return path


def check(folder: Path, source: Path, **options: Any) -> dict[str, Any]:
    return run_module("ag_ui_frontend_source", {"path": str(source), **options}, folder, {})


def packed(folder: Path, source: Path) -> Contents:
    """Return the files that the module packs."""
    dest = folder / "packed.tar.gz"
    result = check(folder, source, dest=str(dest))
    assert "version" in result, result
    with tarfile.open(dest) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]


def test_version_depends_on_names_and_contents_only(tmp_path: Path) -> None:
    sources = [
        write(tmp_path / "dist", FILES),
        tar(tmp_path / "flat.tar.gz", FILES),
        tar(tmp_path / "nested.tar.gz", {f"./dist/{name}": FILES[name] for name in FILES}),
        zipped(tmp_path / "flat.zip", FILES),
        zipped(tmp_path / "nested.zip", {f"dist/{name}": FILES[name] for name in FILES}),
    ]
    versions = {check(tmp_path, source)["version"] for source in sources}
    assert len(versions) == 1
    others = [
        FILES | {"assets/index-DiwrgTda.js": b"export {}; \n"},
        {**FILES, "other.js": b""},
        {"index.html": PAGE, "index-DiwrgTda.js": FILES["assets/index-DiwrgTda.js"]},
    ]
    for number, files in enumerate(others):
        versions.add(check(tmp_path, write(tmp_path / f"other{number}", files))["version"])
    assert len(versions) == 1 + len(others)


def test_names_that_begin_with_a_dot_are_left_out(tmp_path: Path) -> None:
    well_known = {".well-known/security.txt": b"Contact: mailto:a@example.org\n"}
    hidden = {
        ".env": b"SECRET=1",
        ".git/config": b"",
        "assets/.cache/x": b"",
        ".well-known/.x": b"",
    }
    for source in (
        write(tmp_path / "dist", FILES | well_known | hidden),
        tar(tmp_path / "dist.tar.gz", FILES | well_known | hidden),
    ):
        assert packed(tmp_path, source) == FILES | well_known


def test_links_to_files_of_the_frontend_become_copies(tmp_path: Path) -> None:
    files = {**FILES, "a/page.html": PAGE}
    directory = write(tmp_path / "dist", files)
    (directory / "a/first.html").symlink_to("second.html")
    (directory / "a/second.html").symlink_to("../index.html")
    archive = tar(
        tmp_path / "dist.tar.gz",
        files,
        link("a/first.html", "second.html"),
        link("a/second.html", "index.html", tarfile.LNKTYPE),
    )
    links = {"a/first.html": b"second.html", "a/second.html": b"../index.html"}
    expected = files | dict.fromkeys(links, PAGE)
    for source in (directory, archive, zipped(tmp_path / "dist.zip", files, links)):
        assert packed(tmp_path, source) == expected


@pytest.mark.parametrize(
    "entry",
    [
        tarfile.TarInfo("/etc/cron.d/x"),
        tarfile.TarInfo("../x"),
        tarfile.TarInfo("a/../../x"),
        tarfile.TarInfo("a\\x"),
        tarfile.TarInfo("a\nx"),
        link("x", "/etc/passwd"),
        link("x", "../passwd"),
        link("a/x", "../../passwd"),
        link("x", "/etc/passwd", tarfile.LNKTYPE),
        link("x", "nothing"),
        link("x", "x"),
        link("x", "assets"),
        link("x", "", tarfile.FIFOTYPE),
    ],
    ids=lambda entry: f"{entry.name}-{entry.linkname}",
)
def test_entries_that_lead_out_of_an_archive_are_refused(
    tmp_path: Path, entry: tarfile.TarInfo
) -> None:
    result = check(tmp_path, tar(tmp_path / "dist.tar.gz", FILES, entry))
    assert result["failed"]
    assert "dist.tar.gz contains " in result["msg"]
    assert repr(entry.name) in result["msg"]


@pytest.mark.parametrize("target", ["/etc/passwd", "../secret", "..", "assets", "nothing"])
def test_links_that_lead_out_of_a_directory_are_refused(tmp_path: Path, target: str) -> None:
    (tmp_path / "secret").touch()
    directory = write(tmp_path / "dist", FILES)
    (directory / "x").symlink_to(target)
    result = check(tmp_path, directory)
    assert result["failed"]
    assert "'x'" in result["msg"]


@pytest.mark.parametrize(
    ("links", "files"),
    [
        ({"x": b"/etc/passwd"}, {}),
        ({"x": b"../passwd"}, {}),
        ({}, {"../x": b""}),
        ({}, {"/x": b""}),
    ],
)
def test_entries_that_lead_out_of_a_zip_are_refused(
    tmp_path: Path, links: Contents, files: Contents
) -> None:
    result = check(tmp_path, zipped(tmp_path / "dist.zip", FILES | files, links))
    assert result["failed"]
    assert "leads out of it" in result["msg"]


def test_source_without_a_page_is_refused_with_a_remedy(tmp_path: Path) -> None:
    wrong = [{"a.js": b""}, {"index.html": b""}, {"src/index.html": PAGE, "a.js": b""}]
    for number, files in enumerate(wrong):
        source = write(tmp_path / f"{number}", files)
        result = check(tmp_path, source)
        assert result["failed"]
        assert f"{source} has no index.html with content at its top" in result["msg"]


def test_missing_and_unreadable_sources_are_refused(tmp_path: Path) -> None:
    result = check(tmp_path, tmp_path / "nothing")
    assert "there is no directory or archive" in result["msg"]
    archive = tar(tmp_path / "dist.tar.gz", FILES | {"x": os.urandom(100_000)})
    archive.write_bytes(archive.read_bytes()[:50_000])
    (tmp_path / "notes.txt").write_text("no archive")
    os.mkfifo(write(tmp_path / "dist", FILES) / "fifo")
    for name, words in (
        ("dist.tar.gz", "cannot be read"),
        ("notes.txt", "cannot be read"),
        ("dist", "is neither a file nor a directory"),
    ):
        result = check(tmp_path, tmp_path / name)
        assert result["failed"]
        assert words in result["msg"]


def test_too_large_sources_are_refused_before_they_are_read(tmp_path: Path) -> None:
    directory = write(tmp_path / "dist", FILES)
    with (directory / "film.mp4").open("wb") as film:
        film.truncate(257 << 20)
    many = tar(tmp_path / "many.tar.gz", FILES | {f"{n}.js": b"" for n in range(20_000)})
    for source in (directory, many):
        result = check(tmp_path, source)
        assert result["failed"]
        assert (
            f"{source} is too large: a frontend has at most 20000 files and 256 MiB"
            in result["msg"]
        )


def test_file_that_the_backend_hides_causes_a_warning(tmp_path: Path) -> None:
    source = write(tmp_path / "dist", FILES | {"docs/page.html": PAGE, "apis/x": b""})
    result = check(tmp_path, source, reserved=["api", "docs"])
    assert not result.get("failed")
    [warning] = result["warnings"]
    assert "docs/page.html, which nobody can load" in str(warning)


def test_check_mode_writes_no_archive(tmp_path: Path) -> None:
    dest = tmp_path / "packed.tar.gz"
    check(tmp_path, write(tmp_path / "dist", FILES), dest=str(dest), _ansible_check_mode=True)
    assert not dest.exists()
