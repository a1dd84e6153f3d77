"""Read the files of an nginx configuration, following include directives as nginx does."""

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
# The address part of a listen directive that binds all addresses.
WILDCARDS = {"", "*", "0.0.0.0", "[::]"}  # noqa: S104 - compared, not bound
DEFAULT_SERVER = {"default_server", "default"}
# Limit for nested includes, against include cycles.
DEEPEST = 16


class Listener(NamedTuple):
    """A listen directive that binds all addresses of the host."""

    file: Path
    port: int
    is_default: bool


def included(pattern: str, main: Path) -> list[Path]:
    """Expand an include directive.

    Args:
        pattern: Argument of the directive: a path or a glob, relative to the folder of `main`.
        main: Main configuration file.

    Returns:
        Existing files that match, in the order in which nginx reads them.
    """
    target = main.parent / pattern.strip().strip("\"'")
    return sorted(target.parent.glob(target.name)) if target.parent.is_dir() else []


def includes(pattern: str, main: Path, path: Path) -> bool:
    """Whether an include directive matches this path, even if the file does not exist."""
    target = main.parent / pattern.strip().strip("\"'")
    return target.parent == path.parent and fnmatch(path.name, target.name)


def configuration(main: Path) -> Iterator[tuple[Path, str]]:
    """Yield the main file and all files that it includes, each with its text without comments."""
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
    """Whether a site is an unmodified conffile: its MD5 sum is the one that dpkg recorded."""
    command = ["dpkg-query", "--show", "--showformat", "${Conffiles}\\n"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        found = hashlib.md5(site.read_bytes(), usedforsecurity=False).hexdigest()
    except OSError:
        return False
    return [str(site.resolve()), found] in [line.split()[:2] for line in listed.splitlines()]


def listeners(main: Path) -> Iterator[Listener]:
    """Yield the listen directives of all servers that bind all addresses."""
    for path, text in configuration(main):
        for found in LISTEN.finditer(text):
            where, *options = found[1].split()
            address, _, port = where.rpartition(":")
            if address in WILDCARDS and port.isdigit():
                yield Listener(path, int(port), bool(DEFAULT_SERVER & set(options)))


def with_candidates(main: Path, text: str, candidates: Mapping[Path, Path | None]) -> str:
    """Rewrite the include directives of the main file, so that they read candidate files.

    Args:
        main: Main configuration file; includes are relative to its folder.
        text: Text of the main file.
        candidates: For each file that changes, the file to include instead of it, or None to
            leave it out. The file itself need not exist.

    Returns:
        The text. An include that matches none of the files is unchanged.
    """

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
