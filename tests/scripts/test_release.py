"""script/release writes an archive of the image with its checksum, its packages and the variables for it."""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.scripts.conftest import REPOSITORY

if TYPE_CHECKING:
    from tests.scripts.conftest import Checkout

NAME = "shield-ag-ui-1.2.3-amd64"
DIGEST = "5a" * 32
PYTHON = {
    "python": "3.13.5",
    "packages": [
        {
            "Name": "Typing_Extensions",
            "Version": "4.1",
            "License-Expression": "PSF-2.0",
            "License": None,
            "classifiers": [],
        },
        {
            "Name": "redis",
            "Version": "5.0",
            "License-Expression": None,
            "License": "The whole\ntext",
            "classifiers": ["License :: OSI Approved :: MIT License"],
        },
    ],
}
DEBIAN = "installed\tlibc6\t2.41-12\tamd64\tglibc\nconfig-files\told\t1\tamd64\told\n"
DOCKER = """case "$*" in
*os-release*) printf 'ID=debian\\nVERSION_ID="13"\\n' ;;
*dpkg-query*) cat "$(dirname "$0")/debian" ;;
*python3*) cat "$(dirname "$0")/python-packages" ;;
*--format*Repository*) echo other:1 ;;
*--format*version*) echo 1.2.3 ;;
*--format*Architecture*) echo amd64 ;;
"image inspect "*) cat "$(dirname "$0")/image" ;;
"save shield-ag-ui-backend:0123456789abcdef") echo "the layers" ;;
*) echo "unexpected: $*" >&2; exit 1 ;;
esac"""
IMAGE = [
    {
        "Id": f"sha256:{DIGEST}",
        "Created": "2026-01-02T03:04:05.123456789Z",
        "Config": {"Labels": {"org.opencontainers.image.version": "1.2.3"}},
    }
]


@pytest.fixture
def prepared(checkout: Checkout) -> Checkout:
    """A checkout whose image is built by a stub of Ansible, in a stub of an engine."""
    checkout.replace_script("bootstrap", 'echo "bootstrap $*"')
    checkout.stub("docker", DOCKER)
    checkout.stub(
        "ansible-playbook",
        'grep -q other:1 .cache/release/images && echo "$@" >calls\n'
        "echo shield-ag-ui-backend:0123456789abcdef >.cache/release/image",
    )
    checkout.stub("python", f'exec {sys.executable} "$@"')
    (checkout.programs / "python-packages").write_text(json.dumps(PYTHON))
    (checkout.programs / "debian").write_text(DEBIAN)
    (checkout.programs / "image").write_text(json.dumps(IMAGE))
    return checkout


def release(checkout: Checkout) -> dict[str, bytes]:
    """Run the script; return the files by their suffix."""
    done = checkout.run("script/release")
    assert done.returncode == 0, done.stderr
    assert "bootstrap release" in done.stdout
    assert f"-e @dist/{NAME}.yml" in done.stdout
    files = {path.name: path.read_bytes() for path in (checkout.path / "dist").iterdir()}
    return {name.removeprefix(NAME): content for name, content in files.items()}


def test_release_is_complete_and_refers_to_its_files(prepared: Checkout) -> None:
    files = release(prepared)
    assert set(files) == {".tar.gz", ".sha256", ".cdx.json", ".yml"}
    assert gzip.decompress(files[".tar.gz"]) == b"the layers\n"
    checksum = hashlib.sha256(files[".tar.gz"]).hexdigest()
    assert files[".sha256"].decode().split() == [checksum, f"{NAME}.tar.gz"]
    checked = subprocess.run(
        ["sha256sum", "--check", f"{NAME}.sha256"], cwd=prepared.path / "dist", check=False
    )
    assert checked.returncode == 0
    variables = yaml.safe_load(files[".yml"])
    assert variables["ag_ui_image_source"] == "archive"
    assert variables["ag_ui_image_archive"].endswith(f"/dist/{NAME}.tar.gz")
    assert variables["ag_ui_image_archive_sha256"] == checksum
    assert not (prepared.path / ".cache/release").exists()


def test_variables_of_the_release_exist() -> None:
    text = (REPOSITORY / "script/release").read_text()
    specification = yaml.safe_load(
        (REPOSITORY / "roles/ag_ui_deployment/meta/argument_specs.yml").read_text()
    )
    known = specification["argument_specs"]["main"]["options"]
    written = text.partition("<<EOF")[2].partition("\nEOF")[0]
    variables = [line.split(":")[0] for line in written.splitlines() if line.startswith("ag_ui_")]
    assert len(variables) == 3
    assert [name for name in variables if name not in known] == []


def test_same_image_has_the_same_release(prepared: Checkout) -> None:
    assert release(prepared) == release(prepared)


def test_bill_of_materials_has_all_packages(prepared: Checkout) -> None:
    bill: dict[str, Any] = json.loads(release(prepared)[".cdx.json"])
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    root = bill["metadata"]["component"]
    assert (root["name"], root["version"], root["type"]) == (
        "shield-ag-ui-backend",
        "1.2.3",
        "container",
    )
    assert root["hashes"] == [{"alg": "SHA-256", "content": DIGEST}]
    found = {one["purl"]: one for one in bill["components"]}
    assert set(found) == {
        "pkg:deb/debian/libc6@2.41-12?arch=amd64&distro=debian-13",
        "pkg:generic/python@3.13.5",
        "pkg:pypi/typing-extensions@4.1",
        "pkg:pypi/redis@5.0",
    }
    assert found["pkg:pypi/typing-extensions@4.1"]["licenses"][0]["license"]["id"] == "PSF-2.0"
    assert found["pkg:pypi/redis@5.0"]["licenses"][0]["license"]["name"] == "MIT License"


@pytest.mark.parametrize("failing", ["save", "dpkg-query"])
def test_failure_leaves_no_files(prepared: Checkout, failing: str) -> None:
    prepared.stub(
        "docker", f'case "$*" in *{failing}*) echo no engine >&2; exit 3 ;; esac\n{DOCKER}'
    )
    done = prepared.run("script/release")
    assert done.returncode == 1
    assert "no engine" in done.stderr
    assert list((prepared.path / "dist").iterdir()) == []


def test_build_is_that_of_the_role(prepared: Checkout) -> None:
    release(prepared)
    assert "script/files/release.yml" in (prepared.path / "calls").read_text()
    [play] = yaml.safe_load((REPOSITORY / "script/files/release.yml").read_text())
    included = play["tasks"][0]["ansible.builtin.include_role"]
    assert included == {"name": "ag_ui_deployment", "tasks_from": "image_build"}
