"""Which instances of a host a deployment detects."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import pytest

from tests.support.ansible_module import PLUGINS

if TYPE_CHECKING:
    from pathlib import Path

FILE = PLUGINS / "module_utils/ag_ui_units.py"


class Host:
    """The two unit directories."""

    def __init__(self, root: Path) -> None:
        self.kept, self.tried = root / "etc", root / "run"
        (self.kept / "ag-ui.target.wants").mkdir(parents=True)

    def write(self, directory: Path, release: str, port: str, address: str = "127.0.0.1") -> None:
        directory.mkdir(exist_ok=True)
        text = f"EnvironmentFile=/etc/ag-ui/releases/{release}/release.env\n" if release else ""
        text += f"ExecStartPost=curl http://{address}:%i/health/ready; do\n"
        (directory / f"ag-ui-backend@{port}.service").write_text(text)

    def enable(self, port: str) -> None:
        link = self.kept / f"ag-ui.target.wants/ag-ui-backend@{port}.service"
        link.symlink_to(self.kept / f"ag-ui-backend@{port}.service")

    def units(self) -> dict[str, tuple[str, str]]:
        """Return release and endpoint of each instance by its port."""
        spec = importlib.util.spec_from_file_location("ag_ui_units", FILE)
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return {
            name.partition("@")[2].removesuffix(".service"): (unit["release"], unit["endpoint"])
            for name, unit in module.instance_units(self.kept, self.tried).items()
        }


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_host_without_a_deployment_has_no_units(host: Host) -> None:
    assert host.units() == {}


def test_switched_but_not_enabled_instance_is_detected(host: Host) -> None:
    """The next deployment retires it if its port is no longer wanted."""
    host.write(host.kept, "1", "8002")
    host.enable("8002")
    host.write(host.kept, "2", "8004")
    assert host.units() == {"8002": ("1", "127.0.0.1:8002"), "8004": ("2", "127.0.0.1:8004")}


def test_unit_that_was_started_and_not_kept_is_pending(host: Host) -> None:
    host.write(host.kept, "1", "8002")
    host.enable("8002")
    host.write(host.tried, "1", "8002", "192.0.2.1")
    host.write(host.tried, "2", "8004")
    assert host.units() == {"8002": ("", "192.0.2.1:8002"), "8004": ("", "127.0.0.1:8004")}


def test_instances_of_a_template_unit_are_detected_by_their_links(host: Host) -> None:
    host.write(host.kept, "", "")
    host.enable("8002")
    assert host.units() == {"8002": ("", "127.0.0.1:8002")}
