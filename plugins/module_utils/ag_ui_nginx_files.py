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
MAX_INCLUDE_DEPTH = 16


class Listener(NamedTuple):
    """A listen directive that binds all addresses of the host."""

    file: Path
    port: int
    is_default: bool


def expand_include(pattern: str, main: Path) -> list[Path]:
    """Expand an include directive.

    Args:
        pattern: Argument of the directive: a path or a glob, relative to the directory of `main`.
        main: Main configuration file.

    Returns:
        Existing files that match, in the order in which nginx reads them.
    """
    target = main.parent / pattern.strip().strip("\"'")
    return sorted(target.parent.glob(target.name)) if target.parent.is_dir() else []


def include_matches(pattern: str, main: Path, path: Path) -> bool:
    """Whether an include directive matches this path, even if the file does not exist."""
    target = main.parent / pattern.strip().strip("\"'")
    return target.parent == path.parent and fnmatch(path.name, target.name)


def configuration(main: Path) -> Iterator[tuple[Path, str]]:
    """Yield the main file and all files that it includes, each with its text without comments."""
    yield from _read_with_includes(main, main, MAX_INCLUDE_DEPTH)


def _read_with_includes(path: Path, main: Path, depth_left: int) -> Iterator[tuple[Path, str]]:
    try:
        text = COMMENT.sub("", path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return
    yield path, text
    for found in INCLUDE.finditer(text) if depth_left else ():
        for other in expand_include(found[2], main):
            yield from _read_with_includes(other, main, depth_left - 1)


def is_packaged(site: Path) -> bool:
    """Whether a site is an unmodified conffile: its MD5 sum is the one that dpkg recorded."""
    command = ["dpkg-query", "--show", "--showformat", "${Conffiles}\\n"]
    try:
        conffiles = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        checksum = hashlib.md5(site.read_bytes(), usedforsecurity=False).hexdigest()
    except OSError:
        return False
    return [str(site.resolve()), checksum] in [line.split()[:2] for line in conffiles.splitlines()]


def listeners(main: Path) -> Iterator[Listener]:
    """Yield the listen directives of all servers that bind all addresses."""
    for path, text in configuration(main):
        for found in LISTEN.finditer(text):
            endpoint, *parameters = found[1].split()
            address, _, port = endpoint.rpartition(":")
            if address in WILDCARDS and port.isdigit():
                yield Listener(path, int(port), bool(DEFAULT_SERVER & set(parameters)))


def with_candidates(main: Path, text: str, candidates: Mapping[Path, Path | None]) -> str:
    """Rewrite the include directives of the main file, so that they read candidate files.

    Args:
        main: Main configuration file; includes are relative to its directory.
        text: Text of the main file.
        candidates: For each file that changes, the file to include instead of it, or None to
            leave it out. The file itself need not exist.

    Returns:
        The text. An include that matches none of the files is unchanged.
    """

    def expanded(match: re.Match[str]) -> str:
        indent, pattern = match.groups()
        matching = {path for path in candidates if include_matches(pattern, main, path)}
        if not matching:
            return match[0]
        files = {path: candidates.get(path, path) for path in expand_include(pattern, main)}
        files |= {path: candidates[path] for path in matching}
        lines = [f"{indent}include {files[path]};" for path in sorted(files) if files[path]]
        return "\n".join(lines)

    return INCLUDE.sub(expanded, text)
