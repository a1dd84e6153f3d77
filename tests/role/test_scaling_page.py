"""The configuration of keepalived in docs/scaling.md is the one that the scenario cluster runs."""

from __future__ import annotations

import re

from tests.support.playbook import TOP

PAGE = TOP / "docs/scaling.md"
TEMPLATE = TOP / "molecule/cluster/templates/keepalived.conf.j2"


def test_keepalived_is_configured_as_in_the_scenario() -> None:
    [shown] = re.findall(r"^```\n(global_defs .*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    lines = [line for line in TEMPLATE.read_text().splitlines() if not line.startswith("#")]
    used = "\n".join(lines).replace("{{ cluster_site_address }}", "192.168.10.10")
    assert shown == f"{used}\n"
