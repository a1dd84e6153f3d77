"""A site that was backed up under load, lost with both of its hosts, and restored onto new ones."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyotp
import pytest
import yaml  # type: ignore[import-untyped]

from tests.scenarios.support.http import request
from tests.scenarios.support.load import Load
from tests.scenarios.support.site import PASSWORD
from tests.shield import STREAM
from tests.support.playbook import TOP, run_playbook
from tests.support.waiting import Stopwatch, eventually

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.scenarios.support.figures import Figures
    from tests.scenarios.support.http import Answer
    from tests.scenarios.support.load import Published
    from tests.scenarios.support.site import Account, Site
    from tests.support.playbook import Run

EVENTS_PER_SECOND = 100.0
SCHEDULE = "*-*-* 03:15:00"
PROTECTED = "second-factor@example.com"
METRICS = "/var/lib/prometheus/node-exporter"
RUN_LIMIT = 900


@dataclass(frozen=True)
class Loss:
    """What was there before the loss, and how the restore went.

    Attributes:
        saved: Events that were published and acknowledged before the backup.
        lost: Events that were published after it.
        stream: XINFO STREAM after the last event.
        secret: The secret of the second factor of PROTECTED.
        certificate: The certificate of the proxy.
        metrics: The metrics of the backup.
        timer: The state of the timer of the backups.
        exposure: The exposure level of the unit of the backups.
        journal: The log of the backup.
        refusals: The messages of runs that were refused, by their reason.
        restored: The run that restored the site.
        variables: The variables of a restore from the archive.
    """

    saved: list[Published]
    lost: list[Published]
    stream: dict[str, Any]
    secret: str
    certificate: str
    metrics: str
    timer: str
    exposure: str
    journal: str
    refusals: dict[str, str]
    restored: Run
    variables: dict[str, object]


def play(inventory: str, playbook: str, variables: Mapping[str, object], *options: str) -> Run:
    return run_playbook(
        *("--inventory", inventory, "--extra-vars", json.dumps(variables), *options),
        playbook,
        timeout=RUN_LIMIT,
    )


def replace_machines() -> None:
    """Remove both machines with their volumes, and create new ones."""
    platforms = yaml.safe_load((TOP / "molecule/backup/molecule.yml").read_text())["platforms"]
    variables = json.dumps({"molecule_yml": {"platforms": platforms}})
    for playbook in ("destroy", "create"):
        done = run_playbook("--extra-vars", variables, f"molecule/shared/{playbook}.yml")
        assert done.code == 0, done.output


def second_factor(site: Site) -> str:
    """Enable the second factor of a new account; return its secret."""
    account = site.account(PROTECTED, "viewer")
    setup = post(site, account, "/auth/mfa/setup", {"password": PASSWORD})
    secret: str = setup.json()["secret"]
    confirmed = post(site, account, "/auth/mfa/confirm", {"code": pyotp.TOTP(secret).now()})
    assert confirmed.status == 200, confirmed
    return secret


def post(site: Site, account: Account, path: str, body: dict[str, str]) -> Answer:
    return request(
        site.proxy,
        "POST",
        path,
        token=account.token,
        body=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )


def key_pair(folder: Path) -> tuple[str, Path]:
    """Make a key pair of age; return the public key and the file of the private one."""
    private = folder / "key.txt"
    subprocess.run(["age-keygen", "-o", private], check=True, capture_output=True)
    shown = subprocess.run(
        ["age-keygen", "-y", private], check=True, capture_output=True, text=True
    )
    return shown.stdout.strip(), private


@pytest.fixture(scope="session")
def loss(
    site: Site,
    inventory: str,
    user: Account,
    figures: Figures,
    tmp_path_factory: pytest.TempPathFactory,
) -> Loss:
    folder = tmp_path_factory.mktemp("controller")
    recipient, private = key_pair(folder)
    secret = second_factor(site)
    site.dev.run("mkdir", "--parents", METRICS)
    keep: dict[str, object] = {
        "ag_ui_backup_recipient": recipient,
        "ag_ui_backup_schedule": SCHEDULE,
        "ag_ui_backup_destination": str(folder / "backups"),
    }
    with Load(site.redis_url, (user.id, None), per_second=EVENTS_PER_SECOND) as load:
        eventually(lambda: len(load.log) > 5 * EVENTS_PER_SECOND, "a history", within=60)
        saved = list(load.log)
        eventually(
            lambda: saved[-1].stream_id in site.stored(saved[-1].job_id),
            "a stored history",
            within=60,
        )
        clock = Stopwatch()
        backup = play(inventory, "playbooks/backup.yml", keep)
        figures.record("backup_playbook", clock.seconds, "s")
        assert backup.code == 0, backup.output
        published = len(load.log)
        eventually(lambda: len(load.log) > published + 300, "events after it", within=60)
    lost = load.log[published:]
    site.wait_until_caught_up()
    metrics = site.dev.run("cat", f"{METRICS}/ag-ui-backup.prom")
    unit = "ag-ui-backup.service"
    timer = site.dev.run("systemctl", "list-timers", "--no-legend", "ag-ui-backup.timer")
    exposure = site.dev.run("systemd-analyze", "security", "--no-pager", unit).splitlines()[-1]
    journal = site.dev.run("journalctl", "--unit", unit, "--output=cat", "--no-pager")
    certificate, stream = site.certificate, dict(site.redis.xinfo_stream(STREAM))

    [archive] = (folder / "backups").glob("*.tar.age")
    restore = keep | {"ag_ui_restore_archive": str(archive)}
    refusals = {"key": play(inventory, "playbooks/restore.yml", restore).message}
    restore |= {"ag_ui_restore_identity": str(private)}
    refusals["content"] = play(inventory, "playbooks/restore.yml", restore).message
    site.redis.close()
    replace_machines()
    clock = Stopwatch()
    restored = play(inventory, "playbooks/restore.yml", restore)
    figures.record("restore_onto_new_hosts", clock.seconds, "s")
    assert restored.code == 0, restored.output
    site.wait_until_healthy()
    return Loss(
        saved=saved,
        lost=lost,
        stream=stream,
        secret=secret,
        certificate=certificate,
        metrics=metrics,
        timer=timer,
        exposure=exposure,
        journal=journal,
        refusals=refusals,
        restored=restored,
        variables=restore,
    )
