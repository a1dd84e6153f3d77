"""Write text files so that a crash leaves them whole."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def write_atomically(path: Path, text: str, mode: int = 0o644, gid: int = -1) -> None:
    """Replace a file atomically, so that a crash leaves either the old or the new content.

    Args:
        path: The file. Missing directories are created.
        text: Its content.
        mode: Its mode.
        gid: Id of its group; -1 for that of this process.
    """
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    # Private until it has its group.
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
        os.chown(file.fileno(), -1, gid)
        os.fchmod(file.fileno(), mode)
    temporary.replace(path)
