"""The files of an nginx configuration, followed as nginx follows them."""

from __future__ import annotations

import hashlib
import re
import subprocess
from fnmatch import fnmatch
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

INCLUDE = re.compile(r"^([ \t]*)include\s+([^;{}]+);", re.MULTILINE)
LISTEN = re.compile(r"(?:^|(?<=[;{}]))\s*listen\s+([^;{}]+);", re.MULTILINE)
COMMENT = re.compile(r"^[ \t]*#.*$", re.MULTILINE)
# What is bound where a listen line names every address.
WILDCARDS = {"", "*", "0.0.0.0", "[::]"}  # noqa: S104 - compared with, not bound
DEFAULT_SERVER = {"default_server", "default"}
DEEPEST = 16


class Listener(NamedTuple):
    """A listen line for every address of the host."""

    file: Path
    port: int
    is_default: bool


def included(pattern: str, main: Path) -> list[Path]:
    """Files that an include line names, in nginx's order."""
    target = main.parent / pattern.strip().strip("\"'")
    return sorted(target.parent.glob(target.name)) if target.parent.is_dir() else []


def includes(pattern: str, main: Path, path: Path) -> bool:
    """Whether an include line names this path, were there a file."""
    target = main.parent / pattern.strip().strip("\"'")
    return target.parent == path.parent and fnmatch(path.name, target.name)


def configuration(main: Path) -> Iterator[tuple[Path, str]]:
    """The main file and all that it includes, each with its text without comments."""
    yield from _followed(main, main, DEEPEST)


def _followed(path: Path, main: Path, deeper: int) -> Iterator[tuple[Path, str]]:
    try:
        text = COMMENT.sub("", path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return
    yield path, text
    for found in INCLUDE.finditer(text) if deeper else ():
        for other in included(found[2], main):
            yield from _followed(other, main, deeper - 1)


def is_packaged(site: Path) -> bool:
    """Whether a site is just what its package has brought, by the sum that dpkg keeps of it."""
    command = ["dpkg-query", "--show", "--showformat", "${Conffiles}\\n"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        found = hashlib.md5(site.read_bytes(), usedforsecurity=False).hexdigest()
    except OSError:
        return False
    return [str(site.resolve()), found] in [line.split()[:2] for line in listed.splitlines()]


def listeners(main: Path) -> Iterator[Listener]:
    """Listen lines without an address of their own, of all servers."""
    for path, text in configuration(main):
        for found in LISTEN.finditer(text):
            where, *options = found[1].split()
            address, _, port = where.rpartition(":")
            if address in WILDCARDS and port.isdigit():
                yield Listener(path, int(port), bool(DEFAULT_SERVER & set(options)))


def with_candidates(main: Path, text: str, candidates: Mapping[Path, Path | None]) -> str:
    """The text of the main file, with other files in place of some; None leaves one out."""

    def expanded(found: re.Match[str]) -> str:
        indent, pattern = found.groups()
        concerned = {path for path in candidates if includes(pattern, main, path)}
        if not concerned:
            return found[0]
        wanted = {path: candidates.get(path, path) for path in included(pattern, main)}
        wanted |= {path: candidates[path] for path in concerned}
        lines = [f"{indent}include {wanted[path]};" for path in sorted(wanted) if wanted[path]]
        return "\n".join(lines)

    return INCLUDE.sub(expanded, text)
