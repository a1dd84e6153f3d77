"""The lock file of a host: who deploys to it. Used by the deployment and by the command ag-ui."""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from pathlib import Path


class Lock(TypedDict, total=False):
    """The content of the file."""

    holder: str
    run: str
    purpose: str
    # In ISO 8601, in UTC.
    since: str


def read(path: Path) -> Lock | None:
    """Return the lock; None if there is none, and an empty one if the file is damaged."""
    try:
        lock: Lock = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}
    return lock if isinstance(lock, dict) else {}


def create(path: Path, lock: Lock) -> bool:
    """Create the file with its content in one step; return whether there was none."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(lock), encoding="utf-8")
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink()
    return True


def take(path: Path, lock: Lock, replaces: str) -> Lock | None:
    """Take the lock; return the lock of another run that prevents it, else None."""
    existing = read(path)
    if existing is not None and existing.get("run") == lock["run"]:
        return None
    if existing is not None and replaces in {"*", existing.get("run")}:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
    return None if create(path, lock) else read(path) or {}
