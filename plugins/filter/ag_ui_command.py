"""List the files of the role's programs for a host."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PLUGINS = Path("ansible_collections/hx_citadel/shield_ag_ui/plugins")


def command_files(role: str, library: str, command: str, completion: str) -> list[dict[str, str]]:
    """Return the files of the command ag-ui, with their content.

    Code that the command shares with the modules gets the path by which it is imported.

    Args:
        role: Directory of the role, in which the command is written.
        library: Directory on the host for the code.
        command: Path on the host of the program.
        completion: Path on the host of its completion for bash.

    Returns:
        Path, content and mode of each file.
    """
    source, plugins = Path(role, "files/host"), Path(role, "../../plugins").resolve()
    shared = [*plugins.glob("module_utils/*.py"), plugins / "modules/ag_ui_nginx.py"]
    paths = _package(source / "ag_ui_command", library)
    paths |= {path: Path(library, PLUGINS, path.relative_to(plugins)) for path in shared}
    paths |= {source / "ag-ui": Path(command), source / "completion.bash": Path(completion)}
    return _contents(paths, command)


def backup_files(role: str, library: str, command: str) -> list[dict[str, str]]:
    """Return the files of the program ag-ui-backup, with their content.

    Args:
        role: Directory of the role, in which the program is written.
        library: Directory on the host for the code.
        command: Path on the host of the program.

    Returns:
        Path, content and mode of each file.
    """
    source = Path(role, "files/host")
    paths = _package(source / "ag_ui_backup", library) | {source / "ag-ui-backup": Path(command)}
    return _contents(paths, command)


def _package(package: Path, library: str) -> dict[Path, Path]:
    return {path: Path(library, package.name, path.name) for path in package.glob("*.py")}


def _contents(paths: Mapping[Path, Path], command: str) -> list[dict[str, str]]:
    return [
        {
            "path": str(target),
            "content": path.read_text(encoding="utf-8"),
            "mode": "0755" if str(target) == command else "0644",
        }
        for path, target in sorted(paths.items())
    ]


class FilterModule:
    """Registers the filters with Ansible."""

    def filters(self) -> dict[str, Callable[..., list[dict[str, str]]]]:
        """Return the filters by their names in templates."""
        return {"ag_ui_command_files": command_files, "ag_ui_backup_files": backup_files}
