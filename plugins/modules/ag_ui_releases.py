#!/usr/bin/python
"""Remove old releases and their images."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import TypedDict

from ansible.module_utils.basic import AnsibleModule  # type: ignore[import-untyped]
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_release_records import (  # type: ignore[import-not-found]
    DEPLOYED_MARKER,
    deployed_releases,
)

DOCUMENTATION = r"""
---
module: ag_ui_releases
short_description: Remove old releases and their images
description:
  - Keeps the releases that were deployed most recently. Removes the other releases, the images that the role built, loaded or pulled and that no kept release uses, and
    the layers that builds of former images left.
  - Moves the files of an earlier version of the role, which had no release directories, into a deployed release.
  - With O(keep=0) and without O(release), it removes everything.
options:
  directory:
    description: Directory that contains the directory C(releases) and the link C(current).
    type: path
    required: true
  release:
    description: Name of the release that all instances run.
    type: str
    default: ""
  keep:
    description: Number of releases to keep, including O(release).
    type: int
    required: true
  repositories:
    description: Names, without tags, of the images that the role builds and loads. Only tags that are a digest are removed.
    type: list
    elements: str
    required: true
  keep_images:
    description: Images to keep in addition to those of the kept releases.
    type: list
    elements: str
    default: []
  layer_label:
    description: Label of the untagged images that builds leave. The newest is kept as a cache as long as a release is.
    type: str
    required: true
  pulled:
    description: File with the name and the id of each image that the role has pulled, one image per line.
    type: path
    default: /var/lib/ag-ui/pulled
  former_unit:
    description: Path of the template unit that an earlier version of the role used for all instances.
    type: path
    default: /etc/systemd/system/ag-ui-backend@.service
author: [Shield AG-UI]
"""

EXAMPLES = r"""
- name: Remove old releases
  hx_citadel.shield_ag_ui.ag_ui_releases:
    directory: /etc/ag-ui
    release: 0123456789abcdef
    keep: 5
    repositories: [shield-ag-ui-backend]
    layer_label: ag-ui.stage
"""

RETURN = r"""
removed:
  description: Names of the releases and images that were removed, or in check mode would be.
  returned: success
  type: list
  elements: str
"""

DIGEST_TAG = re.compile(r"[0-9a-f]{16}")


class Options(TypedDict):
    """The options of the module."""

    directory: str
    release: str
    keep: int
    repositories: list[str]
    keep_images: list[str]
    layer_label: str
    pulled: str
    former_unit: str


def docker(*arguments: str) -> list[str]:
    """Run `docker`; return the lines of its output, or none if it fails or is not installed."""
    try:
        completed = subprocess.run(
            ["docker", *arguments], capture_output=True, text=True, check=False
        )
    except OSError:
        return []
    return completed.stdout.splitlines() if completed.returncode == 0 else []


def read_setting(file: Path, name: str) -> str:
    """Read a value from an environment file; empty if the file or the name is missing."""
    try:
        text = file.read_text(encoding="utf-8")
    except OSError:
        return ""
    match = re.search(rf"^{name}=(.+)$", text, re.MULTILINE)
    return match[1] if match else ""


def image_of(release: Path) -> str:
    """Return the image of a release; empty if its release.env is missing."""
    return read_setting(release / "release.env", "AG_UI_IMAGE")


def adopt_former_release(directory: Path, unit: Path, *, check: bool) -> bool:
    """Move the files of an earlier version of the role, which had no releases, into a release.

    Args:
        directory: Configuration directory.
        unit: Unit file of that version.
        check: Whether to only report.

    Returns:
        Whether there were such files.
    """
    environment = directory / "release.env"
    # release.env goes last: if the run is interrupted, the next one still finds the name in it.
    files = [path for path in (directory / "backend.env", unit, environment) if path.is_file()]
    if files and not check:
        name = Path(read_setting(environment, "AG_UI_RELEASE") or "former").name
        release = directory / "releases" / name
        release.mkdir(mode=0o755, parents=True, exist_ok=True)
        (release / DEPLOYED_MARKER).touch()
        for path in files:
            shutil.move(path, release / path.name)
    return bool(files)


def select_releases(directory: Path, current: str, keep: int) -> tuple[list[Path], list[Path]]:
    """Select the releases to keep: the current one, then those deployed most recently.

    Args:
        directory: Configuration directory.
        current: Name of the current release.
        keep: Number of releases to keep.

    Returns:
        The directories to keep and those to remove.
    """
    existing = [path for path in (directory / "releases").glob("*") if path.is_dir()]
    names = [name for name in dict.fromkeys([current, *deployed_releases(directory)]) if name]
    kept = [directory / "releases" / name for name in names][:keep]
    return kept, [path for path in existing if path not in kept]


def pulled_images(file: Path) -> dict[str, str]:
    """Read names and ids of the images that the role has pulled."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return dict(line.split(" ", 1) for line in lines if " " in line)


def unused_images(params: Options, kept: list[Path]) -> list[str]:
    """Find images of the role that no kept release uses.

    Args:
        params: Options of the module.
        kept: Directories of the kept releases.

    Returns:
        Names of images, and ids of build layers.
    """
    used = {image_of(release) for release in kept} | set(params["keep_images"])
    names = docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}")
    tagged = [(name, *name.rpartition(":")[::2]) for name in names]
    own = {
        name
        for name, repository, tag in tagged
        if repository in params["repositories"] and DIGEST_TAG.fullmatch(tag)
    }
    # The tag may have moved to another image since; that image does not belong to the role.
    pulled = {
        name
        for name, image_id in pulled_images(Path(params["pulled"])).items()
        if docker("image", "inspect", "--format", "{{.Id}}", name) == [image_id]
    }
    layers = docker(
        *("image", "ls", "--quiet", "--filter", "dangling=true"),
        *("--filter", f"label={params['layer_label']}"),
    )
    # Newest first; the newest stays, because it is the cache for a build with the same packages.
    return sorted((own | pulled) - used) + layers[1 if kept else 0 :]


def remove_images(images: list[str], pulled: Path) -> None:
    """Remove the images, also from the list of pulled images; docker refuses images that a container uses."""
    for image in images:
        docker("image", "rm", image)
    recorded = pulled_images(pulled)
    if recorded.keys() & set(images):
        lines = [
            f"{name} {image_id}\n" for name, image_id in recorded.items() if name not in images
        ]
        pulled.write_text("".join(lines), encoding="utf-8")


def main() -> None:
    """Remove what is not kept."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "release": {"type": "str", "default": ""},
            "keep": {"type": "int", "required": True},
            "repositories": {"type": "list", "elements": "str", "required": True},
            "keep_images": {"type": "list", "elements": "str", "default": []},
            "layer_label": {"type": "str", "required": True},
            "pulled": {"type": "path", "default": "/var/lib/ag-ui/pulled"},
            "former_unit": {
                "type": "path",
                "default": "/etc/systemd/system/ag-ui-backend@.service",
            },
        },
        supports_check_mode=True,
    )
    params: Options = module.params
    directory, current = Path(params["directory"]), params["release"]
    changed = adopt_former_release(directory, Path(params["former_unit"]), check=module.check_mode)
    kept, old = select_releases(directory, current, params["keep"])
    images = unused_images(params, kept)
    if not module.check_mode:
        for release in old:
            shutil.rmtree(release)
        remove_images(images, Path(params["pulled"]))
    removed = [release.name for release in old] + images
    module.exit_json(changed=changed or bool(removed), removed=removed)


if __name__ == "__main__":
    main()
