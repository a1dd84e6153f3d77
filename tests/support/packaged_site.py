"""A site of nginx that a package has brought, and a dpkg that knows its sum."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def add_packaged_site(link: Path, text: str, *, programs: Path) -> Path:
    """Add it as Debian does, with a link to a file in sites-available.

    Args:
        link: Where nginx reads it.
        text: What the package has brought.
        programs: A folder of programs, for the one that asks dpkg.

    Returns:
        The file that the link leads to.
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
