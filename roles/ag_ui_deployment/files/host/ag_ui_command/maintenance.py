"""`ag-ui maintenance`: close the site for clients, and open it again."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_host_state import (
    running_instances,
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_release_records import (
    utc_now,
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_site_state import (
    maintenance_since,
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_text_files import (
    write_atomically,
)

from ag_ui_command.errors import REFUSED, CommandError
from ag_ui_command.host import operator, run
from ag_ui_command.output import say

if TYPE_CHECKING:
    from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_site import Site

# Within this time, a request that nginx has passed on before has opened its stream.
SETTLE_SECONDS = 1.0


def begin(site: Site) -> None:
    """Let nginx refuse requests, and end the streams that are open.

    Raises:
        CommandError: The configuration of nginx is of a release that does not know maintenance.
    """
    flag, proxy = Path(site["maintenance"]), Path(site["proxy_site"])
    if not proxy.is_file() or str(flag) not in proxy.read_text(encoding="utf-8"):
        raise CommandError(
            f"{proxy} is missing or of a release that does not know maintenance. Deploy the current one.",
            REFUSED,
        )
    if not flag.exists():
        write_atomically(flag, f"{utc_now()} by {operator()}\n")
    time.sleep(SETTLE_SECONDS)
    deaf = [
        container
        for container in running_instances()
        if container.startswith(f"{site['unit']}-")
        and run("docker", "kill", "--signal=USR1", container).returncode
    ]
    say(
        f"Maintenance is on since {maintenance_since(flag)}: clients get 503 and try again a minute later, health "
        "checks still work.",
        "Open streams are told to reconnect."
        if not deaf
        else f"The streams of {', '.join(deaf)} could not be told: they end when that instance stops.",
        "This is about the proxy of this host. To end it: ag-ui maintenance off",
    )


def end(site: Site) -> None:
    """Let nginx pass requests again."""
    flag = Path(site["maintenance"])
    was_on = flag.exists()
    flag.unlink(missing_ok=True)
    say("Maintenance is off." if was_on else "Maintenance was not on.")


def show(site: Site) -> None:
    """Print whether maintenance is on."""
    since = maintenance_since(Path(site["maintenance"]))
    say(f"Maintenance is on since {since}." if since else "Maintenance is off.")
