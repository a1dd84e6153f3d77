"""Run a module of the collection as Ansible does on a host, without Ansible's start-up time, or import its parts."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

TOP = Path(__file__).resolve().parents[2]
PLUGINS = TOP / "plugins"
# Ansible packages the module with the code that it imports from the collection.
START = """
import runpy, sys
top, name = sys.argv.pop(1), sys.argv[1]
sys.path.append(f"{top}/collections")
del sys.argv[1]
runpy.run_path(f"{top}/plugins/modules/{name}.py", run_name="__main__")
"""


def run_module(
    name: str, arguments: Mapping[str, object], folder: Path, environment: Mapping[str, str]
) -> dict[str, Any]:
    """Run the module and return its result.

    Args:
        name: The module, without its suffix.
        arguments: Its arguments.
        folder: A directory for the file with the arguments.
        environment: Variables to set in addition to those of this process.

    Returns:
        The result as the task receives it; `failed` is true if the module has failed.
    """
    file = folder / f"{name}.json"
    file.write_text(json.dumps({"ANSIBLE_MODULE_ARGS": dict(arguments)}), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", START, str(TOP), name, file],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def import_util(name: str) -> ModuleType:
    """Import a file of plugins/module_utils, by the name that the modules of the collection use.

    Args:
        name: The file, without its suffix.
    """
    if str(TOP / "collections") not in sys.path:
        sys.path.append(str(TOP / "collections"))
    return importlib.import_module(
        f"ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.{name}"
    )
