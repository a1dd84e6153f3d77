"""Print the state of a host as JSON: files, units, packages, and what Docker has. Runs on the host, without this checkout."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
from pathlib import Path

FOLDERS = ("/etc", "/usr/local", "/var/lib", "/var/log/nginx", "/run/systemd/system.control")
# What programs of the host change at any time, or what another part of the record has.
VOLATILE = (
    # Copies that useradd and userdel make, and the cache of the linker.
    *(f"/etc/{name}-" for name in ("passwd", "group", "shadow", "gshadow", "subuid", "subgid")),
    "/etc/ld.so.cache",
    "/var/lib/apt",
    "/var/lib/containerd",
    "/var/lib/docker",
    "/var/lib/dpkg",
    "/var/lib/sudo",
    "/var/lib/systemd",
    # Requests to the other site.
    "/var/log/nginx/access.log",
    "/var/log/nginx/error.log",
)
COMMANDS = {
    "packages": (
        "dpkg-query",
        "--show",
        "--showformat",
        "${db:Status-Status} ${Package} ${Version}\n",
    ),
    "units": ("systemctl", "list-unit-files", "--plain", "--no-legend", "--no-pager"),
    "images": ("docker", "image", "ls", "--all", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"),
    "containers": ("docker", "ps", "--all", "--format", "{{.Names}}"),
    "volumes": ("docker", "volume", "ls", "--format", "{{.Name}}"),
    "networks": ("docker", "network", "ls", "--format", "{{.Name}}"),
}


def is_volatile(path: str) -> bool:
    return any(path == name or path.startswith(f"{name}/") for name in VOLATILE)


def describe(path: str) -> str:
    """Return mode and owner of a file, and the digest of its content or the target of a link."""
    status = os.lstat(path)
    text = f"{stat.filemode(status.st_mode)} {status.st_uid}:{status.st_gid}"
    if stat.S_ISLNK(status.st_mode):
        return f"{text} {os.readlink(path)}"  # noqa: PTH115 - as it is, also if it leads nowhere
    if stat.S_ISREG(status.st_mode):
        return f"{text} {hashlib.sha256(Path(path).read_bytes()).hexdigest()}"
    return text


def files() -> dict[str, str]:
    """Describe all files and directories below the folders."""
    found = {}
    for top in FOLDERS:
        for folder, directories, names in os.walk(top):
            directories[:] = [one for one in directories if not is_volatile(f"{folder}/{one}")]
            paths = [f"{folder}/{name}" for name in (*directories, *names)]
            found.update({path: describe(path) for path in paths if not is_volatile(path)})
    return found


def main() -> None:
    record: dict[str, object] = {"files": files()}
    for name, command in COMMANDS.items():
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        # Units that systemd makes for a container or a login.
        record[name] = sorted(one for one in done.stdout.splitlines() if " transient" not in one)
    print(json.dumps(record, indent=1, sort_keys=True))  # noqa: T201


if __name__ == "__main__":
    main()
