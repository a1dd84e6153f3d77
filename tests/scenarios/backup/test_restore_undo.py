"""A restore onto an existing site is undone with the commands of the runbook, and no event is lost."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from tests.scenarios.support.http import EventStream
from tests.scenarios.support.jobs import Job
from tests.scenarios.support.site import PASSWORD
from tests.support.waiting import eventually

from .conftest import play

if TYPE_CHECKING:
    from tests.scenarios.backup.conftest import Loss
    from tests.scenarios.support.site import Account, Site
    from tests.shield import Publisher

EXCHANGE = """
ALTER DATABASE shield RENAME TO shield_restored;
ALTER DATABASE shield_before_restore RENAME TO shield;
"""


def published(site: Site, publisher: Publisher, owner: Account) -> tuple[str, list[str]]:
    """Publish a job and wait until it is stored; return its id and the ids of its events."""
    job = Job(owner=owner.id)
    ids = publisher.publish_all(job.all_events(20))
    eventually(lambda: site.stored(job.id) == ids, "the stored job", within=60)
    return job.id, ids


def run_as_operator(site: Site, command: str) -> str:
    """Run a command of the runbook on the host, with the password of the owner for psql."""
    password = shlex.quote(site.dev.variables["ag_ui_database_owner_password"])
    return site.dev.run("bash", "-ec", f"export PGPASSWORD={password}\n{command}")


def test_undone_restore_has_the_former_users_and_all_events(
    site: Site, inventory: str, user: Account, loss: Loss, publisher: Publisher
) -> None:
    former = site.account("since-the-backup@example.com", "viewer")
    before = published(site, publisher, user)

    restored = play(
        inventory, "playbooks/restore.yml", loss.variables | {"ag_ui_restore_overwrite": True}
    )
    assert restored.code == 0, restored.output
    site.wait_until_healthy()
    assert site.ask_for_token(former.email, PASSWORD).status == 401
    meanwhile = published(site, publisher, user)

    site.dev.systemctl("stop", "ag-ui.target")
    site.wait_until_gone()
    run_as_operator(
        site,
        f"psql --host hx-sqldb-server --username shield_owner postgres <<'SQL'{EXCHANGE}SQL",
    )
    [saved] = site.dev.run("sh", "-c", "ls -dt /var/backups/ag-ui/before-* | head -n 1").split()
    site.dev.run("cp", "-a", f"{saved}/.", "/etc/ag-ui/")
    told = run_as_operator(site, "ag-ui exec stream resume <<<null")
    assert "nothing is lost" in told
    deployed = play(inventory, "site.yml", {})
    assert deployed.code == 0, deployed.output

    site.wait_until_healthy()
    assert site.ask_for_token(former.email, PASSWORD).status == 200
    wanted = dict((before, meanwhile))
    eventually(lambda: {job: site.stored(job) for job in wanted} == wanted, "all events", within=60)
    with EventStream(
        site.proxy, f"/api/jobs/{meanwhile[0]}/events", user.token, last_event_id=meanwhile[1][0]
    ) as stream:
        stream.wait_for_id(meanwhile[1][-1])
    assert "are whole" in site.cli("audit", "verify")
