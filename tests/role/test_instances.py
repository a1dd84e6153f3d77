"""Ports and endpoints of plugins/filter/ag_ui_instances.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from plugins.filter.ag_ui_instances import former_endpoints, peer_endpoints, pending_ports

if TYPE_CHECKING:
    from plugins.module_utils.ag_ui_units import UnitState

UNIT = "ag-ui-backend"


@pytest.mark.parametrize(
    ("unit_release", "running_release", "ports"),
    [
        ("new", "new", []),
        ("new", "old", ["8002"]),
        ("old", "new", ["8002"]),
        ("", "new", ["8002"]),
        (None, "new", ["8002"]),
        ("new", None, ["8002"]),
        (None, None, ["8002"]),
    ],
)
def test_an_instance_is_pending_unless_it_runs_and_would_start_the_release(
    unit_release: str | None, running_release: str | None, ports: list[str]
) -> None:
    units: dict[str, UnitState] = {}
    if unit_release is not None:
        units[f"{UNIT}@8002.service"] = {"release": unit_release, "endpoint": ""}
    instances = {} if running_release is None else {f"{UNIT}-8002": running_release}
    assert pending_ports([8002], units, instances, "new", UNIT) == ports


def test_the_endpoints_of_peers_are_those_that_this_host_can_reach() -> None:
    hostvars: dict[str, dict[str, Any]] = {
        "own": {"ag_ui_bind_address": "10.0.0.1"},
        "default": {},
        "loopback": {"ag_ui_bind_address": "127.0.0.2"},
        "same": {"ag_ui_bind_address": "10.0.0.2"},
        "other": {"ag_ui_bind_address": "10.0.0.3", "ag_ui_backend_ports": [9000, 9001]},
        # `-e name=value` passes a string; the validation has converted it.
        "typed": {
            "ag_ui_bind_address": "10.0.0.4",
            "ag_ui_backend_ports": "8100",
            "__ag_ui_typed": {"ag_ui_backend_ports": [8100]},
        },
    }
    assert peer_endpoints(hostvars, hostvars, "own", [8002]) == [
        "10.0.0.2:8002",
        "10.0.0.3:9000",
        "10.0.0.3:9001",
        "10.0.0.4:8100",
    ]


def test_former_endpoints_are_those_that_are_no_longer_configured() -> None:
    def host(*endpoints: str) -> dict[str, Any]:
        units = {str(place): {"endpoint": it} for place, it in enumerate(endpoints)}
        return {"__ag_ui_preflight": {"units": units}}

    hostvars = {
        "own": host("127.0.0.1:8002", "127.0.0.1:9002", ""),
        "peer": host("10.0.0.2:8002", "10.0.0.2:9002", "127.0.0.1:9003"),
        "not-in-the-play": {},
    }
    assert former_endpoints(hostvars, hostvars, "own", ["127.0.0.1:8002", "10.0.0.2:8002"]) == [
        "127.0.0.1:9002",
        "10.0.0.2:9002",
    ]
