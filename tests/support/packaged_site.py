"""A site of nginx from a package, and a stub dpkg that knows its checksum."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def add_packaged_site(link: Path, text: str, *, programs: Path) -> Path:
    """Add the site as Debian does, with a link to a file in sites-available.

    Args:
        link: Where nginx reads it.
        text: The content in the package.
        programs: A folder in PATH, for the stub of dpkg-query.

    Returns:
        The target of the link.
    """
    file = link.parents[1] / "sites-available" / link.name
    file.parent.mkdir()
    file.write_text(text)
    link.symlink_to(file)
    known = f" {file.resolve()} {hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()}"
    program = programs / "dpkg-query"
    program.write_text(f"#!/bin/sh\necho '{known}'\n")
    program.chmod(0o755)
    return file
