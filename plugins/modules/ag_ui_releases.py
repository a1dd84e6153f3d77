#!/usr/bin/python
"""Record which release runs, and remove old releases and their images."""

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
    the images that the role has built, loaded or pulled and that no kept release names, and the build layers of
    former images.
  - What a version of the role from before directories of releases has left becomes a release that was deployed.
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
    description: Names, without tags, of the images that the role builds and loads; it tags them with a digest.
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
  pulled:
    description: File with the name and the id of each image that the role has pulled, one a line.
    type: path
    default: /var/lib/ag-ui/pulled
  former_unit:
    description: The unit of all instances, where a former version of the role has left one.
    type: path
    default: /etc/systemd/system/ag-ui-backend@.service
author: [Shield AG-UI]
"""

EXAMPLES = r"""
- name: Record the release
  hx_citadel.shield_ag_ui.ag_ui_releases:
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

# Marker file in the directory of each release that all instances have run.
DEPLOYED = "deployed"
DIGEST_TAG = re.compile(r"[0-9a-f]{16}")


def docker(*arguments: str) -> list[str]:
    """Run `docker`; return the lines of its output, or none if it fails or is not installed."""
    try:
        done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    except OSError:
        return []
    return done.stdout.splitlines() if done.returncode == 0 else []


def setting(file: Path, name: str) -> str:
    """Read a value from an environment file; empty if the file or the name is missing."""
    try:
        text = file.read_text(encoding="utf-8")
    except OSError:
        return ""
    found = re.search(rf"^{name}=(.+)$", text, re.MULTILINE)
    return found[1] if found else ""


def image_of(release: Path) -> str:
    """Return the image of a release; empty if its release.env is missing."""
    return setting(release / "release.env", "AG_UI_IMAGE")


def adopt(directory: Path, unit: Path, *, check: bool) -> bool:
    """Move the files of an earlier version of the role, which had no releases, into a release.

    Args:
        directory: Configuration directory.
        unit: Unit file of that version.
        check: Whether to only report.

    Returns:
        Whether there were such files.
    """
    named = directory / "release.env"
    # release.env goes last: if the run is interrupted, the next one still finds the name in it.
    files = [path for path in (directory / "backend.env", unit, named) if path.is_file()]
    if files and not check:
        release = directory / "releases" / Path(setting(named, "AG_UI_RELEASE") or "former").name
        release.mkdir(mode=0o755, parents=True, exist_ok=True)
        (release / DEPLOYED).touch()
        for path in files:
            shutil.move(path, release / path.name)
    return bool(files)


def record(directory: Path, release: str, *, check: bool) -> bool:
    """Point the link `current` at a release and mark it as deployed.

    Args:
        directory: Configuration directory.
        release: Name of the release.
        check: Whether to only report.

    Returns:
        Whether the link changed.
    """
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
    """Select the releases to keep: the current one, then those deployed most recently.

    Args:
        directory: Configuration directory.
        current: Name of the current release.
        keep: Number of releases to keep.

    Returns:
        The directories to keep and those to remove.
    """
    written = [path for path in (directory / "releases").glob("*") if path.is_dir()]
    deployed = [path for path in written if (path / DEPLOYED).exists() and path.name != current]
    deployed.sort(key=lambda path: (path / DEPLOYED).stat().st_mtime, reverse=True)
    stay = [path for path in written if path.name == current] + deployed
    return stay[:keep], [path for path in written if path not in stay[:keep]]


def pulled_images(file: Path) -> dict[str, str]:
    """Read names and ids of the images that the role has pulled."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return dict(line.split(" ", 1) for line in lines if " " in line)


def former_images(wanted: dict[str, Any], stay: list[Path]) -> list[str]:
    """Find images of the role that no kept release needs.

    Args:
        wanted: Parameters of the module.
        stay: Directories of the kept releases.

    Returns:
        Names of images, and ids of build layers.
    """
    kept = {image_of(release) for release in stay} | set(wanted["keep_images"])
    listed = docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}")
    named = [(name, *name.rpartition(":")[::2]) for name in listed]
    own = {
        name
        for name, repository, tag in named
        if repository in wanted["repositories"] and DIGEST_TAG.fullmatch(tag)
    }
    # The name may have been moved to another image since; such an image is not ours.
    pulled = {
        name
        for name, image_id in pulled_images(Path(wanted["pulled"])).items()
        if docker("image", "inspect", "--format", "{{.Id}}", name) == [image_id]
    }
    layers = docker(
        *("image", "ls", "--quiet", "--filter", "dangling=true"),
        *("--filter", f"label={wanted['layer_label']}"),
    )
    # Newest first; the newest stays, because it is the cache for a build with the same packages.
    return sorted((own | pulled) - kept) + layers[1 if stay else 0 :]


def remove_images(images: list[str], pulled: Path) -> None:
    """Remove the images and forget them as pulled; docker refuses images that a container uses."""
    for image in images:
        docker("image", "rm", image)
    remembered = pulled_images(pulled)
    if remembered.keys() & set(images):
        left = [f"{name} {of}\n" for name, of in remembered.items() if name not in images]
        pulled.write_text("".join(left), encoding="utf-8")


def main() -> None:
    """Record the release, then remove what is not kept; the order protects the recorded release."""
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
    wanted = module.params
    directory, current = Path(wanted["directory"]), wanted["release"]
    changed = adopt(directory, Path(wanted["former_unit"]), check=module.check_mode)
    if current:
        changed |= record(directory, current, check=module.check_mode)
    stay, gone = releases(directory, current, wanted["keep"])
    images = former_images(wanted, stay)
    if not module.check_mode:
        for release in gone:
            shutil.rmtree(release)
        remove_images(images, Path(wanted["pulled"]))
    removed = [release.name for release in gone] + images
    module.exit_json(changed=changed or bool(removed), removed=removed)


if __name__ == "__main__":
    main()
