#!/usr/bin/python
"""Record which release runs, and remove the releases and images of former ones."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule  # type: ignore[import-untyped]

DOCUMENTATION = r"""
---
module: ag_ui_releases
short_description: Record which release runs, and remove former ones
description:
  - Points C(current) at the release, and keeps the last releases that all instances have run. The others go, with
    their images, the images of the role that no kept release names, and the build layers of former images.
  - Without a release, and with none to keep, all of them go.
options:
  directory:
    description: Directory with C(releases) and C(current).
    type: path
    required: true
  release:
    description: The release that all instances run; none where nothing is to be recorded.
    type: str
    default: ""
  keep:
    description: How many releases stay, the recorded one included.
    type: int
    required: true
  repositories:
    description: Names, without tags, of images that only this role makes.
    type: list
    elements: str
    required: true
  keep_images:
    description: Images that stay besides those of the kept releases.
    type: list
    elements: str
    default: []
  layer_label:
    description: Label of the images that a build leaves without a name; the newest stays while a release does.
    type: str
    required: true
author: [Shield AG-UI]
"""

EXAMPLES = r"""
- name: Record the release
  ag_ui_releases:
    directory: /etc/ag-ui
    release: 0123456789abcdef
    keep: 3
    repositories: [shield-ag-ui-backend]
    layer_label: ag-ui.stage
"""

RETURN = r"""
removed:
  description: Releases and images that were removed, or would be.
  returned: success
  type: list
"""

# A file in the directory of each release that all instances have run.
DEPLOYED = "deployed"


def docker(*arguments: str) -> list[str]:
    """Lines of the output; none where there is no engine."""
    try:
        done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    except OSError:
        return []
    return done.stdout.splitlines() if done.returncode == 0 else []


def image_of(release: Path) -> str:
    """The image that a release is started from."""
    try:
        text = (release / "release.env").read_text(encoding="utf-8")
    except OSError:
        return ""
    found = re.search(r"^AG_UI_IMAGE=(.+)$", text, re.MULTILINE)
    return found[1] if found else ""


def record(directory: Path, release: str, *, check: bool) -> bool:
    """Point at a release; whether that changes anything."""
    pointer = directory / "current"
    target = Path("releases", release)
    if pointer.is_symlink() and pointer.readlink() == target:
        return False
    if not check:
        (directory / target / DEPLOYED).touch()
        fresh = directory / ".current.new"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(target)
        fresh.replace(pointer)
    return True


def releases(directory: Path, current: str, keep: int) -> tuple[list[Path], list[Path]]:
    """The releases that stay, and those that go."""
    written = [path for path in (directory / "releases").glob("*") if path.is_dir()]
    deployed = [path for path in written if (path / DEPLOYED).exists() and path.name != current]
    deployed.sort(key=lambda path: (path / DEPLOYED).stat().st_mtime, reverse=True)
    stay = [path for path in written if path.name == current] + deployed
    return stay[:keep], [path for path in written if path not in stay[:keep]]


def former_images(wanted: dict[str, Any], stay: list[Path], gone: list[Path]) -> list[str]:
    """Images that nothing which stays is started from or built on."""
    kept = {image_of(release) for release in stay} | set(wanted["keep_images"])
    listed = docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}")
    own = {name for name in listed if name.rpartition(":")[0] in wanted["repositories"]}
    present = own | ({image_of(release) for release in gone} & set(listed))
    layers = docker(
        *("image", "ls", "--quiet", "--filter", "dangling=true"),
        *("--filter", f"label={wanted['layer_label']}"),
    )
    # Listed from the newest on; a build with the same packages starts from that one.
    return sorted(present - kept - {""}) + layers[1 if stay else 0 :]


def main() -> None:
    """Record first: what is recorded stays."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "release": {"type": "str", "default": ""},
            "keep": {"type": "int", "required": True},
            "repositories": {"type": "list", "elements": "str", "required": True},
            "keep_images": {"type": "list", "elements": "str", "default": []},
            "layer_label": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    wanted = module.params
    directory, current = Path(wanted["directory"]), wanted["release"]
    changed = bool(current) and record(directory, current, check=module.check_mode)
    stay, gone = releases(directory, current, wanted["keep"])
    images = former_images(wanted, stay, gone)
    if not module.check_mode:
        for release in gone:
            shutil.rmtree(release)
        for image in images:
            # A container of somebody else's may use it: then it stays.
            docker("image", "rm", image)
    removed = [release.name for release in gone] + images
    module.exit_json(changed=changed or bool(removed), removed=removed)


if __name__ == "__main__":
    main()
