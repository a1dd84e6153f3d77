"""Read the files of a site's frontend from a directory or an archive, and reject what cannot be served safely."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import lzma
import os
import posixpath
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

INDEX = "index.html"
# Limits of a frontend, which is read into memory.
FILES_MAX = 20_000
BYTES_MAX = 256 << 20
PATH_MAX = 4096
VERSION_LENGTH = 16
# Served although its name begins with a dot (RFC 8615).
WELL_KNOWN = ".well-known"
# What the libraries raise for damaged, truncated, encrypted and unknown archives.
UNREADABLE = (
    *(OSError, EOFError, KeyError, ValueError, RuntimeError, NotImplementedError),
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError),
)


class FrontendError(Exception):
    """The frontend cannot be deployed; the message has the reason and the remedy."""


class Entry(NamedTuple):
    """A file or a link of a directory or an archive."""

    name: str
    size: int
    read: Callable[[], bytes]
    # Path from the top to what a link leads to; None for a file.
    link: str | None


def read_frontend(source: Path) -> dict[str, bytes]:
    """Read a frontend.

    Leaves out files and directories whose names begin with a dot. Links to other files of the source become copies.
    An archive may have everything in one directory.

    Args:
        source: A directory, or an archive (.tar.gz or .zip).

    Returns:
        The content of each file by its path from the top, with `index.html`.

    Raises:
        FrontendError: There is no such source, it is too large, has no `index.html`, or has links or
            paths that lead out of it.
    """
    try:
        files = _read_entries(source, _entries(source))
    except UNREADABLE as error:
        raise FrontendError(
            f"{source} cannot be read: {error}. Name a directory, or an archive made by tar (.tar.gz) or zip."
        ) from error
    if not source.is_dir():
        files = _without_top_directory(files)
    if not files.get(INDEX):
        raise FrontendError(
            f"{source} has no {INDEX} with content at its top. Name the directory that the build has written, such as dist."
        )
    return files


def version_of(files: dict[str, bytes]) -> str:
    """Return a digest of names and contents, as 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(json.dumps([name, hashlib.sha256(files[name]).hexdigest()]).encode())
    return digest.hexdigest()[:VERSION_LENGTH]


def pack(files: dict[str, bytes], dest: Path) -> None:
    """Write the files as an archive (.tar.gz)."""
    with (
        gzip.GzipFile(dest, "wb", compresslevel=6, mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w") as archive,
    ):
        for name in sorted(files):
            entry = tarfile.TarInfo(name)
            entry.size = len(files[name])
            archive.addfile(entry, io.BytesIO(files[name]))


def _entries(source: Path) -> Iterator[Entry]:
    if source.is_dir():
        return _directory_entries(source)
    if not source.exists():
        raise FrontendError(
            f"there is no directory or archive {source} on the controller. Correct the path; an address begins with "
            "http:// or https://."
        )
    if zipfile.is_zipfile(source):
        return _zip_entries(source)
    return _tar_entries(source)


def _directory_entries(source: Path) -> Iterator[Entry]:
    def fail(error: OSError) -> None:
        raise error

    for directory, directories, names in os.walk(source, onerror=fail):
        linked = [name for name in directories if Path(directory, name).is_symlink()]
        for name in (*names, *linked):
            path = Path(directory, name)
            link = str(path.readlink()) if path.is_symlink() else None
            relative = path.relative_to(source).as_posix()
            status = path.lstat()
            if link is None and not stat.S_ISREG(status.st_mode):
                raise FrontendError(f"{path} is neither a file nor a directory. Remove it.")
            yield Entry(relative, status.st_size, path.read_bytes, _target(relative, link))


def _tar_entries(source: Path) -> Iterator[Entry]:
    with tarfile.open(source) as archive:
        for member in archive:
            if member.isdir():
                continue
            if not (member.isreg() or member.issym() or member.islnk()):
                raise FrontendError(f"{source} contains {member.name!r}, which is no file.")

            def read(member: tarfile.TarInfo = member) -> bytes:
                content = archive.extractfile(member)
                return content.read() if content else b""

            # A hard link has the path from the top of the archive.
            link = member.linkname if member.islnk() else None
            if member.issym():
                link = _target(member.name, member.linkname)
            yield Entry(member.name, member.size, read, link)


def _zip_entries(source: Path) -> Iterator[Entry]:
    with zipfile.ZipFile(source) as archive:
        for member in archive.infolist():
            if member.is_dir():
                continue

            def read(member: zipfile.ZipInfo = member) -> bytes:
                return archive.read(member)

            link = None
            if stat.S_ISLNK(member.external_attr >> 16) and member.file_size < PATH_MAX:
                link = _target(member.filename, read().decode())
            yield Entry(member.filename, member.file_size, read, link)


def _target(name: str, link: str | None) -> str | None:
    """Return the path from the top to which a symbolic link leads."""
    return None if link is None else posixpath.join(posixpath.dirname(name), link)


def _read_entries(source: Path, entries: Iterator[Entry]) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    links: dict[str, str] = {}
    size = 0
    for count, entry in enumerate(entries, 1):
        name = _require_inside(source, entry.name, entry.name)
        size += entry.size
        if count > FILES_MAX or size > BYTES_MAX:
            raise FrontendError(
                f"{source} is too large: a frontend has at most {FILES_MAX} files and {BYTES_MAX >> 20} MiB. Leave out "
                "source maps and media, or serve them from another host."
            )
        if _is_hidden(name):
            continue
        if entry.link is None:
            files[name] = entry.read()
        else:
            links[name] = _require_inside(source, entry.name, entry.link)
    for name, target in links.items():
        files[name] = _follow(source, name, target, files, links)
    for name in files:
        if any(parent.as_posix() in files for parent in Path(name).parents):
            raise FrontendError(f"{source} has {name!r} and a file with the name of its directory.")
    return files


def _require_inside(source: Path, name: str, path: str) -> str:
    """Return the normal form of a path, which must not lead out of the source.

    Args:
        source: Where it is from.
        name: The entry, for the message.
        path: The path from the top of the source.

    Raises:
        FrontendError: It leads out of the source, or cannot be part of an address.
    """
    normal = posixpath.normpath(path)
    if path.startswith("/") or ".." in normal.split("/") or "\\" in path or not path.isprintable():
        raise FrontendError(
            f"{source} contains {name!r}, which leads out of it or has characters that cannot be served. Pack the directory "
            "of the build alone, with relative names."
        )
    return normal


def _is_hidden(name: str) -> bool:
    parts = name.split("/")
    if parts[0] == WELL_KNOWN:
        parts = parts[1:]
    return any(part.startswith(".") for part in parts)


def _follow(
    source: Path, name: str, target: str, files: dict[str, bytes], links: dict[str, str]
) -> bytes:
    """Return the content of the file to which a link leads, perhaps by other links."""
    for _ in links:
        if target not in links:
            break
        target = links[target]
    if target not in files:
        raise FrontendError(
            f"{source} contains the link {name!r}, which leads to no file in it. Replace it by a file."
        )
    return files[target]


def _without_top_directory(files: dict[str, bytes]) -> dict[str, bytes]:
    """Return the files without the directory in which all of them are, if it has the index."""
    tops = {name.partition("/")[0] for name in files}
    if len(tops) != 1 or f"{min(tops)}/{INDEX}" not in files:
        return files
    return {name.partition("/")[2]: content for name, content in files.items()}
