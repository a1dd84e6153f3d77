#!/usr/bin/python
"""Install and load an nginx configuration, or leave the old one if nginx rejects the new one."""

from __future__ import annotations

import contextlib
import grp
import json
import os
import pwd
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import NamedTuple, TypedDict

from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_nginx_files import (  # type: ignore[import-not-found]
    is_packaged,
    with_candidates,
)

DOCUMENTATION = r"""
---
module: ag_ui_nginx
short_description: Test, install and load configuration files of nginx
description:
  - Tests the files together with the rest of the configuration of the host before it installs them. If nginx
    rejects them, nothing is installed. If nginx cannot load them, the old files are restored.
  - >-
    The file O(stamp) exists only while nginx runs the written configuration. It is removed before the first change
    and created after nginx has loaded the files, so that the next run completes an interrupted one.
options:
  main:
    description: Main configuration file of nginx.
    type: path
    required: true
  files:
    description: Files to install.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Path of the file.
        type: path
        required: true
      mode:
        description: Permissions in octal notation.
        type: str
        required: true
      content:
        description: Content of the file. Either this or O(files[].src) is required.
        type: str
      src:
        description: File on the target to copy. It may be secret, so diffs do not contain it.
        type: path
  absent:
    description: Files to remove.
    type: list
    elements: path
    default: []
  packaged:
    description: >-
      Links to sites to remove if the sites are unchanged since their package installed them. If a link is no longer
      listed, it is restored, unless nginx rejects the site because another one has taken its place.
    type: list
    elements: path
    default: []
  logs:
    description: Log files of the site, which only the user of nginx and the group adm can access.
    type: list
    elements: path
    default: []
  worker_connections:
    description: >-
      Least value of C(worker_connections) in O(main); a larger one that the file had before is kept. If it is omitted, the
      former value is restored.
    type: int
  changes:
    description: >-
      File to record what the module changes in the configuration of others, O(packaged) and O(worker_connections), so that
      it can be restored. If it is omitted, nothing is restored.
    type: path
  stamp:
    description: File that marks that nginx has loaded the written configuration.
    type: path
    required: true
  started:
    description: Whether to start nginx if it is not running.
    type: bool
    default: true
  reload_seconds:
    description: Seconds within which a reload must have replaced the workers that accept connections.
    type: float
    default: 15
author: [Shield AG-UI]
"""

EXAMPLES = r"""
- name: Install the site
  hx_citadel.shield_ag_ui.ag_ui_nginx:
    main: /etc/nginx/nginx.conf
    files: [{path: /etc/nginx/conf.d/site.conf, mode: "0644", content: "server { listen 80; }"}]
    stamp: /var/lib/ag-ui/proxy.loaded
"""

RETURN = r"""
loaded:
  description: Whether nginx was started or reloaded, or in check mode would be.
  returned: success
  type: bool
"""

SERVICE = "nginx.service"
LOG_MODE = 0o640
WORKER_CONNECTIONS = re.compile(r"^(\s*worker_connections\s+)(\d+);", re.MULTILINE)


class _InstalledFile(TypedDict):
    path: str
    # In octal notation.
    mode: str


class FileOptions(_InstalledFile, total=False):
    """An element of the option `files`, with either `content` or `src`."""

    content: str
    src: str


class Options(TypedDict):
    """The options of the module."""

    main: str
    files: list[FileOptions]
    absent: list[str]
    packaged: list[str]
    logs: list[str]
    worker_connections: int | None
    changes: str | None
    stamp: str
    started: bool
    reload_seconds: float


class Changes(NamedTuple):
    """What the configuration of others was before the module changed it."""

    # Value in the main file; 0 if it is unknown.
    worker_connections: int
    # Target of each removed link.
    links: dict[str, str]


class RejectedError(Exception):
    """Nginx rejects the configuration."""


class File(NamedTuple):
    """Path, content and mode of a file."""

    path: Path
    content: bytes
    mode: int

    def is_installed(self) -> bool:
        """Whether the file exists with this content and mode."""
        try:
            return (
                self.path.stat().st_mode & 0o7777 == self.mode
                and self.path.read_bytes() == self.content
            )
        except OSError:
            return False

    def install(self) -> None:
        """Write the file atomically."""
        temporary = self.path.with_name(f"{self.path.name}.new")
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(self.content)
            os.fchmod(file.fileno(), self.mode)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(self.path)


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a program; the caller checks its exit status."""
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


# --- testing the configuration ------------------------------------------------------------


def require_valid(main: Path, replacements: dict[str, str] | None = None) -> None:
    """Run `nginx -t`.

    Args:
        main: Main configuration file to test.
        replacements: Temporary paths in the error message, and the real path for each.

    Raises:
        RejectedError: With nginx's error message.
    """
    result = run("nginx", "-t", "-q", "-c", str(main))
    if result.returncode:
        message = result.stderr.strip()
        for temporary, real in (replacements or {}).items():
            message = message.replace(temporary, real)
        raise RejectedError(message or f"nginx -t exited with {result.returncode}")


def require_valid_with(
    main: Path, files: list[File], absent: list[Path], links: dict[Path, str], logs: list[Path]
) -> None:
    """Test the files together with the rest of the configuration, without installing them.

    Args:
        main: Main configuration file.
        files: Files to install; may include the main file.
        absent: Files that will be removed.
        links: Links that will be restored, with their targets.
        logs: Log files that the files name.

    Raises:
        RejectedError: Nginx rejects the result.
    """
    with tempfile.TemporaryDirectory(prefix="ag-ui-nginx-") as directory:
        copies = {
            file.path: Path(directory, f"{n}-{file.path.name}") for n, file in enumerate(files)
        }
        # The test must not create the real log files.
        temporary_paths = {str(path): str(copy) for path, copy in copies.items()}
        temporary_paths |= {str(log): str(Path(directory, log.name)) for log in logs}
        # Relative paths are resolved from the directory of the main file, so the trial file must be in it.
        trial = main.with_name(f".{main.name}.ag-ui-trial")
        candidates: dict[Path, Path | None] = dict.fromkeys(absent)
        candidates |= {link: link.parent / target for link, target in links.items()}
        candidates |= {path: copy for path, copy in copies.items() if path != main}
        try:
            for file in files:
                text = file.content.decode("utf-8", "surrogateescape")
                for real, temporary in temporary_paths.items():
                    text = text.replace(real, temporary)
                copies[file.path].write_text(text, encoding="utf-8", errors="surrogateescape")
            text = copies.get(main, main).read_text(encoding="utf-8", errors="surrogateescape")
            text = with_candidates(main, text, candidates)
            trial.write_text(text, encoding="utf-8", errors="surrogateescape")
            real_paths = {temporary: real for real, temporary in temporary_paths.items()}
            require_valid(trial, real_paths | {str(trial): str(main)})
        finally:
            trial.unlink(missing_ok=True)


# --- loading the configuration ------------------------------------------------------------


def is_running() -> bool:
    """Whether the nginx service is active."""
    return run("systemctl", "is-active", "--quiet", SERVICE).returncode == 0


def workers() -> set[str]:
    """Return the process ids of the workers that accept connections; those that shut down are left out."""
    master = run("systemctl", "show", "--property=MainPID", "--value", SERVICE).stdout.strip()
    pids = set()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):  # the process has ended
            parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
            title = (process / "cmdline").read_bytes()
            if parent == master and title.startswith(b"nginx: worker process\0"):
                pids.add(process.name)
    return pids


def load(timeout: float) -> None:
    """Start nginx, or reload it and wait until only new workers accept connections.

    Args:
        timeout: Seconds within which a reload must have replaced the workers.

    Raises:
        RejectedError: Nginx does not start, or keeps its old configuration.
    """
    if not is_running():
        started = run("systemctl", "start", SERVICE)
        if started.returncode:
            raise RejectedError(f"nginx does not start: {started.stderr.strip()}")
        return
    before = workers()
    reloaded = run("systemctl", "reload", SERVICE)
    if reloaded.returncode:
        raise RejectedError(f"nginx does not reload: {reloaded.stderr.strip()}")
    deadline = time.monotonic() + timeout
    # Right after a reload old and new workers both accept connections.
    while not (current := workers()) or current & before:
        if time.monotonic() > deadline:
            raise RejectedError("nginx keeps its old configuration; its error log says why")
        time.sleep(0.05)


# --- changes ------------------------------------------------------------------------------


class Log(NamedTuple):
    """A log file, which nginx itself would create readable for all users."""

    path: Path
    owner: tuple[int, int]

    def is_private(self) -> bool:
        """Whether the file exists with the right mode and owner."""
        try:
            status = self.path.stat()
        except OSError:
            return False
        return (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (LOG_MODE, *self.owner)

    def make_private(self) -> None:
        """Create the file before nginx does, or correct one that nginx has created."""
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, LOG_MODE)
        with os.fdopen(descriptor, "ab"):
            os.fchmod(descriptor, LOG_MODE)
            os.fchown(descriptor, *self.owner)


def logs_owner(main: Path) -> tuple[int, int]:
    """Return the user and group ids that Debian's logrotate configuration gives nginx's logs."""
    user = re.search(r"^\s*user\s+([\w.-]+)", main.read_text(encoding="utf-8"), re.MULTILINE)
    if os.geteuid() or not user:
        return os.geteuid(), os.getegid()
    return pwd.getpwnam(user[1]).pw_uid, grp.getgrnam("adm").gr_gid


def snapshot(path: Path) -> File | str | None:
    """Return what is at a path: a file, the target of a symbolic link, or None."""
    if path.is_symlink():
        return str(path.readlink())
    if not path.exists():
        return None
    return File(path, path.read_bytes(), path.stat().st_mode & 0o7777)


def restore(path: Path, before: File | str | None) -> None:
    """Restore what `snapshot` returned for a path."""
    if isinstance(before, File):
        before.install()
        return
    path.unlink(missing_ok=True)
    if before is not None:
        path.symlink_to(before)


def apply(
    main: Path,
    files: list[File],
    absent: list[Path],
    links: dict[Path, str],
    timeout: float | None,
) -> None:
    """Install the files and load them; restore the old files on any error.

    Args:
        main: Main configuration file.
        files: Files to install.
        absent: Files to remove.
        links: Links to restore, with their targets.
        timeout: Seconds for the reload; None to install the files without loading them.

    Raises:
        RejectedError: Nginx rejects or does not load the configuration.
    """
    before = {path: snapshot(path) for path in [*(file.path for file in files), *absent, *links]}
    try:
        for file in files:
            file.install()
        for path in absent:
            path.unlink(missing_ok=True)
        for path, target in links.items():
            path.symlink_to(target)
        if timeout is not None:
            require_valid(main)
            load(timeout)
    except BaseException:
        for path, content in before.items():
            restore(path, content)
        raise


def read_changes(params: Options) -> Changes:
    """Read what the module has changed in earlier runs; nothing if there is no record."""
    file = Path(params["changes"] or "/nonexistent")
    if not file.is_file():
        return Changes(0, {})
    return Changes(**json.loads(file.read_text(encoding="utf-8")))


def write_changes(params: Options, changes: Changes) -> None:
    """Write the record, or remove it if nothing is left to restore."""
    if not params["changes"]:
        return
    file = Path(params["changes"])
    if any(changes):
        file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        File(file, json.dumps(changes._asdict()).encode(), 0o644).install()
    else:
        file.unlink(missing_ok=True)


def worker_connections(main: Path) -> int:
    """Return the value in the main file; 0 if it has none."""
    if not main.is_file():
        return 0
    found = WORKER_CONNECTIONS.search(main.read_text(encoding="utf-8", errors="replace"))
    return int(found[2]) if found else 0


def planned_changes(params: Options, main: Path, absent: list[Path], recorded: Changes) -> Changes:
    """Add to the record what this run changes in the configuration of others.

    Args:
        params: Options of the module.
        main: Main configuration file.
        absent: Files that this run removes.
        recorded: What earlier runs have changed.

    Returns:
        The record to write before the change.
    """
    connections = recorded.worker_connections
    # If the files of the role are in place, an earlier version has changed the value without a record.
    is_new = not any(Path(file["path"]).exists() for file in params["files"] if "content" in file)
    if params["worker_connections"] and not connections and is_new:
        connections = worker_connections(main)
    links = {
        str(path): str(path.readlink())
        for path in absent
        if path.is_symlink() and str(path) in params["packaged"]
    }
    return Changes(connections, recorded.links | links)


def links_to_restore(params: Options, recorded: Changes) -> dict[Path, str]:
    """Return the removed links that are no longer to be removed, with their targets."""
    links = {Path(link): target for link, target in recorded.links.items()}
    return {
        link: target
        for link, target in links.items()
        if str(link) not in params["packaged"]
        and not os.path.lexists(link)
        and (link.parent / target).exists()
    }


def remaining_changes(params: Options, planned: Changes) -> Changes:
    """Return the record without what this run has restored."""
    links = {link: target for link, target in planned.links.items() if link in params["packaged"]}
    return Changes(planned.worker_connections if params["worker_connections"] else 0, links)


def read_source(src: str) -> bytes:
    """Read a file that an earlier task has copied to the target; check mode may not have copied it."""
    path = Path(src)
    return path.read_bytes() if path.exists() else b""


def desired_files(params: Options, main: Path, former_connections: int) -> list[File]:
    """List the desired files.

    Args:
        params: Options of the module.
        main: Main configuration file; in the result if its `worker_connections` are to be set or restored.
        former_connections: The value before the first run; 0 if it is unknown.

    Returns:
        All files, whether or not they are in place.
    """
    files = []
    for file in params["files"]:
        content = file["content"].encode() if "content" in file else read_source(file["src"])
        files.append(File(Path(file["path"]), content, int(file["mode"], 8)))
    connections = max(params["worker_connections"] or 0, former_connections)
    if connections and main.is_file():
        text = main.read_text(encoding="utf-8", errors="surrogateescape")
        text = WORKER_CONNECTIONS.sub(rf"\g<1>{connections};", text)
        content = text.encode("utf-8", "surrogateescape")
        files.append(File(main, content, main.stat().st_mode & 0o7777))
    return files


def require_valid_or_drop(
    params: Options, main: Path, files: list[File], absent: list[Path], links: dict[Path, str]
) -> dict[Path, str]:
    """Test the configuration; leave out links to restore whose sites another site has replaced.

    Returns:
        The links that can be restored.

    Raises:
        RejectedError: Nginx rejects the configuration also without the links.
    """
    logs = [Path(path) for path in params["logs"]]
    try:
        require_valid_with(main, files, absent, links, logs)
    except RejectedError:
        if not links:
            raise
        require_valid_with(main, files, absent, {}, logs)
        return {}
    return links


def differences(params: Options, changed: list[File]) -> list[dict[str, str]]:
    """Return diffs for Ansible, without files from `src`, which may be secret."""
    public = {file["path"] for file in params["files"] if "content" in file} | {params["main"]}
    return [
        {
            "before_header": str(file.path),
            "after_header": str(file.path),
            "before": file.path.read_text(errors="replace") if file.path.exists() else "",
            "after": file.content.decode(errors="replace"),
        }
        for file in changed
        if str(file.path) in public
    ]


def main() -> None:
    """Compare, test, install and load the configuration."""
    # Not above: the command ag-ui imports this file, on hosts without Ansible.
    from ansible.module_utils.basic import (  # type: ignore[import-untyped]  # noqa: PLC0415
        AnsibleModule,
    )

    module = AnsibleModule(
        argument_spec={
            "main": {"type": "path", "required": True},
            "files": {"type": "list", "elements": "dict", "default": []},
            "absent": {"type": "list", "elements": "path", "default": []},
            "packaged": {"type": "list", "elements": "path", "default": []},
            "logs": {"type": "list", "elements": "path", "default": []},
            "worker_connections": {"type": "int"},
            "changes": {"type": "path"},
            "stamp": {"type": "path", "required": True},
            "started": {"type": "bool", "default": True},
            "reload_seconds": {"type": "float", "default": 15},
        },
        supports_check_mode=True,
    )
    params: Options = module.params
    main_file, stamp = Path(params["main"]), Path(params["stamp"])
    recorded = read_changes(params)
    absent = [path for path in map(Path, params["absent"]) if os.path.lexists(path)]
    absent += [path for path in map(Path, params["packaged"]) if is_packaged(path)]
    planned = planned_changes(params, main_file, absent, recorded)
    links = links_to_restore(params, recorded)
    files = desired_files(params, main_file, planned.worker_connections)
    files = [file for file in files if not file.is_installed()]
    owner = logs_owner(main_file) if params["logs"] else (0, 0)
    logs = [
        log for log in (Log(Path(path), owner) for path in params["logs"]) if not log.is_private()
    ]
    diff = differences(params, files)
    installed = shutil.which("nginx") is not None
    missing = [file["src"] for file in params["files"] if not Path(file.get("src", "/")).exists()]
    if missing and not module.check_mode:
        module.fail_json(
            msg=f"There is no {', '.join(missing)} on this host. Run the whole deployment."
        )
    try:
        if installed and (files or absent or links) and not missing:
            links = require_valid_or_drop(params, main_file, files, absent, links)
    except RejectedError as rejection:
        module.fail_json(
            msg="nginx rejects the configuration, so nothing was installed and nginx runs as before:\n"
            f"{rejection}\nCorrect the file that it names, and deploy again."
        )
    runs = installed and is_running()
    # Without its directory the role is not deployed, and nothing is to be loaded.
    is_loaded = stamp.exists() or not stamp.parent.is_dir()
    stale = bool(files or absent or links) or not is_loaded or not runs
    loading = installed and stale and (runs or params["started"])
    changed = bool(files or absent or links or logs or loading)
    if module.check_mode or not changed:
        module.exit_json(changed=changed, loaded=loading, diff=diff)
    for log in logs:
        log.make_private()
    try:
        if stale:
            stamp.unlink(missing_ok=True)
            write_changes(params, planned)
            apply(main_file, files, absent, links, params["reload_seconds"] if loading else None)
        if loading and stamp.parent.is_dir():
            stamp.touch()
        write_changes(params, remaining_changes(params, planned))
    except RejectedError as rejection:
        module.fail_json(
            msg=f"nginx could not load the configuration, so the old files were restored:\n{rejection}\n"
            "Correct the cause, and deploy again; until then nginx runs as before."
        )
    module.exit_json(changed=changed, loaded=loading, diff=diff)


if __name__ == "__main__":
    main()
