"""Run the scripts in a copy of the checkout, with stub programs first in PATH."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).parents[2]
NOBODY = 65534


@dataclass
class Checkout:
    """A folder with the scripts and none of their output."""

    path: Path
    programs: Path

    def stub(self, name: str, body: str) -> None:
        """Put a shell script with this program's name first in PATH."""
        program = self.programs / name
        program.write_text(f"#!/bin/sh\n{body}\n")
        program.chmod(0o755)

    def replace_script(self, script: str, body: str) -> None:
        """Replace one of the project's scripts with a shell script."""
        (self.path / "script" / script).write_text(f"#!/bin/sh\n{body}\n")

    def run(self, *command: str, unprivileged: bool = False) -> subprocess.CompletedProcess[str]:
        """Run a command in the checkout, without standard input."""
        user = NOBODY if unprivileged and os.geteuid() == 0 else None
        return subprocess.run(
            command,
            cwd=self.path,
            env={"PATH": f"{self.programs}:{os.environ['PATH']}", "HOME": str(self.path)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            user=user,
            group=user,
            extra_groups=[] if user else None,
        )

    def shell(self, text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run shell text after sourcing script/lib.sh."""
        return self.run("bash", "-c", f"source script/lib.sh; {text}", "shell", *arguments)


@pytest.fixture
def checkout() -> Iterator[Checkout]:
    """A copy of the scripts that an unprivileged user may write to."""
    # Other users cannot enter pytest's own temporary folder.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        for name in ("script", "requirements"):
            shutil.copytree(REPOSITORY / name, path / name)
        programs = path / "programs"
        programs.mkdir()
        path.chmod(0o755)
        if os.geteuid() == 0:
            os.chown(path, NOBODY, NOBODY)
        yield Checkout(path, programs)
