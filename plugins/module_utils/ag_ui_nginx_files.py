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
SERVER = re.compile(r"(?:^|(?<=[\s;{}]))server\s*\{")
SERVER_NAME = re.compile(r"(?:^|(?<=[\s;{}]))server_name\s+([^;{}]+);")
# A block without blocks inside.
INNER_BLOCK = re.compile(r"\{[^{}]*\}")
DEFAULT_PORT = 80
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


class Server(NamedTuple):
    """A server block, with its ports on any address and its names in lower case."""

    file: Path
    ports: set[int]
    names: set[str]


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


def _read(path: Path) -> str:
    """Return the text of a file without comments."""
    return COMMENT.sub("", path.read_text(encoding="utf-8", errors="replace"))


def _read_with_includes(path: Path, main: Path, depth_left: int) -> Iterator[tuple[Path, str]]:
    try:
        text = _read(path)
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


def servers(main: Path) -> Iterator[Server]:
    """Yield the server blocks of all files."""
    for path, text in configuration(main):
        for found in SERVER.finditer(text):
            block = _block(text, found.end())
            ports = {_port(listen.split()[0]) for listen in LISTEN.findall(block)}
            names = " ".join(SERVER_NAME.findall(block)).lower().split()
            yield Server(path, (ports or {DEFAULT_PORT}) - {0}, set(names))


def _block(text: str, start: int) -> str:
    """Return the text from `start` to the closing brace of its block."""
    depth = 1
    for position in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return text[start:position]
    return text[start:]


def _port(endpoint: str) -> int:
    """Return the port of a listen directive; 0 for a Unix socket."""
    if endpoint.startswith("unix:"):
        return 0
    port = endpoint.rpartition(":")[2]
    return int(port) if port.isdigit() else DEFAULT_PORT


def main_directives(main: Path, own: set[Path]) -> set[str]:
    """Return the names of the directives outside of all blocks, except in own files.

    Args:
        main: Main configuration file.
        own: Files to leave out.
    """
    names: set[str] = set()
    unread, read = [main], set(own)
    while unread:
        path = unread.pop()
        if path in read or not path.is_file():
            continue
        read.add(path)
        text = _read(path)
        while INNER_BLOCK.search(text):
            text = INNER_BLOCK.sub(";", text)
        for statement in filter(None, map(str.split, text.split(";"))):
            names.add(statement[0])
            if statement[0] == "include":
                unread += expand_include(" ".join(statement[1:]), main)
    return names


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
