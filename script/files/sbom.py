"""Print a bill of materials of an image in CycloneDX: its Debian packages, Python, and its Python packages."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import uuid
from datetime import datetime
from typing import Any

from cyclonedx.factory.license import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import LicenseAcknowledgement
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

SCHEMA = SchemaVersion.V1_6
# Runs in the image, with its own Python.
LIST_PYTHON = """
import importlib.metadata, json, platform
fields = ("Name", "Version", "License-Expression", "License")
found = [
    {name: one.metadata.get(name) for name in fields}
    | {"classifiers": one.metadata.get_all("Classifier") or []}
    for one in importlib.metadata.distributions()
]
print(json.dumps({"python": platform.python_version(), "packages": found}))
"""
DPKG_FORMAT = (
    "${db:Status-Status}\\t${Package}\\t${Version}\\t${Architecture}\\t${source:Package}\\n"
)
# A licence in one line; some packages have its whole text there.
LICENCE_MAX = 80


def docker(*arguments: str) -> str:
    """Run docker and return its output; its errors go to standard error."""
    done = subprocess.run(["docker", *arguments], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def run_in(image: str, *command: str) -> str:
    """Run a command in a new container without network."""
    return docker("run", "--rm", "--pull=never", "--network=none", image, *command)


def licence_of(package: dict[str, Any]) -> str:
    """Return the licence that the metadata of a Python package declare, or an empty string."""
    declared = package["License-Expression"] or package["License"] or ""
    if declared and len(declared) <= LICENCE_MAX and "\n" not in declared:
        return str(declared)
    names = [
        one.rpartition(" :: ")[2] for one in package["classifiers"] if one.startswith("License ::")
    ]
    return names[0] if names else ""


def python_components(image: str) -> list[Component]:
    """Return Python and its packages."""
    listed = json.loads(run_in(image, "python3", "-c", LIST_PYTHON))
    version = listed["python"]
    components = [
        Component(
            type=ComponentType.PLATFORM,
            name="python",
            version=version,
            purl=PackageURL("generic", None, "python", version),
            bom_ref=f"python@{version}",
        )
    ]
    for package in listed["packages"]:
        name, version = package["Name"], package["Version"]
        licence = licence_of(package)
        purl = PackageURL("pypi", None, re.sub(r"[-_.]+", "-", name).lower(), version)
        components.append(
            Component(
                type=ComponentType.LIBRARY,
                name=name,
                version=version,
                licenses=[
                    LicenseFactory().make_from_string(
                        licence, license_acknowledgement=LicenseAcknowledgement.DECLARED
                    )
                ]
                if licence
                else [],
                purl=purl,
                bom_ref=str(purl),
            )
        )
    return components


def debian_components(image: str) -> list[Component]:
    """Return the Debian packages."""
    release = dict(
        line.replace('"', "").split("=", 1)
        for line in run_in(image, "cat", "/etc/os-release").splitlines()
        if "=" in line
    )
    distribution = release["ID"]
    distro = f"{distribution}-{release.get('VERSION_ID', '')}"
    components = []
    listed = run_in(image, "dpkg-query", "--show", "--showformat", DPKG_FORMAT)
    for line in listed.splitlines():
        status, name, version, architecture, source = line.split("\t")
        if status != "installed":
            continue
        qualifiers = {"arch": architecture, "distro": distro}
        purl = PackageURL("deb", distribution, name, version, qualifiers)
        components.append(
            Component(
                type=ComponentType.LIBRARY,
                name=name,
                version=version,
                purl=purl,
                properties=[Property(name="ag-ui:source-package", value=source)],
                bom_ref=str(purl),
            )
        )
    return components


def bill_of(image: str) -> Bom:
    """Make the bill of materials; the same image has the same one.

    Args:
        image: Name of an image of the local engine.
    """
    details = json.loads(docker("image", "inspect", image))[0]
    digest = details["Id"].removeprefix("sha256:")
    repository, _, _ = image.rpartition(":")
    version = details["Config"]["Labels"]["org.opencontainers.image.version"]
    root = Component(
        type=ComponentType.CONTAINER,
        name=repository,
        version=version,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
        licenses=[LicenseFactory().make_from_string("Apache-2.0")],
        bom_ref=f"{repository}@{version}",
    )
    components = debian_components(image) + python_components(image)
    bom = Bom(components=components, serial_number=uuid.uuid5(uuid.NAMESPACE_URL, details["Id"]))
    bom.metadata.component = root
    # Docker writes nanoseconds, which Python does not read.
    created = re.sub(r"\.\d+", "", details["Created"])
    bom.metadata.timestamp = datetime.fromisoformat(created)
    bom.register_dependency(root, components)
    return bom


def main() -> None:
    """Print the bill of materials, if it is valid."""
    bill = make_outputter(bill_of(sys.argv[1]), OutputFormat.JSON, SCHEMA).output_as_string(
        indent=2
    )
    if error := JsonStrictValidator(SCHEMA).validate_str(bill):
        sys.exit(f"the bill of materials is invalid: {error}")
    sys.stdout.write(f"{bill}\n")


if __name__ == "__main__":
    main()
