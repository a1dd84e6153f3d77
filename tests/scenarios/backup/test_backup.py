"""A site comes back from its backup after the loss of both hosts, and says what is lost."""

from __future__ import annotations

import re
from itertools import groupby
from typing import TYPE_CHECKING, Any

import pyotp
import pytest

from tests.scenarios.support.http import EventStream, request
from tests.scenarios.support.jobs import Job
from tests.scenarios.support.site import PASSWORD
from tests.shield import STREAM
from tests.support.waiting import eventually

from .conftest import PROTECTED

if TYPE_CHECKING:
    from tests.scenarios.backup.conftest import Loss
    from tests.scenarios.support.site import Account, Site
    from tests.shield import Publisher

EXPOSURE_LIMIT = 3.0

pytestmark = pytest.mark.usefixtures("loss")


def gap_notices(stream: EventStream) -> list[dict[str, Any]]:
    return [event for event in stream.events if event.get("name") == "hx.shield.gap"]


def test_backup_is_a_hardened_unit_with_a_readable_log(loss: Loss) -> None:
    found = re.search(r"exposure level .*: ([0-9.]+) ", loss.exposure)
    assert found, loss.exposure
    assert float(found[1]) <= EXPOSURE_LIMIT
    for words in ("rows of", "archive written and read again", "restored into a scratch database"):
        assert words in loss.journal
    assert "ag_ui_backup_ok 1" in loss.metrics.splitlines()


def test_timer_runs_before_the_loss_and_after_the_restore(site: Site, loss: Loss) -> None:
    assert "03:15:00" in loss.timer
    assert site.dev.is_active("ag-ui-backup.timer")


def test_restore_is_refused_without_a_key_and_over_a_database(loss: Loss) -> None:
    assert "is encrypted. Set -e ag_ui_restore_identity" in loss.refusals["key"]
    assert (
        "has tables. To replace it, set -e ag_ui_restore_overwrite=true"
        in (loss.refusals["content"])
    )


def test_users_log_in_and_stay_logged_in(site: Site, user: Account, admin: Account) -> None:
    for account in (user, admin):
        answer = request(site.proxy, "GET", "/auth/me", token=account.token)
        assert answer.status == 200, answer
    assert site.ask_for_token(user.email, PASSWORD).status == 200
    assert site.ask_for_token(admin.email, site.admin_password).status == 200


def test_second_factor_works(site: Site, loss: Loss) -> None:
    form = {"username": PROTECTED, "password": PASSWORD}
    refused = request(site.proxy, "POST", "/auth/token", form=form)
    assert refused.status == 401
    code = pyotp.TOTP(loss.secret).now()
    answer = request(site.proxy, "POST", "/auth/token", form=form | {"otp": code})
    assert answer.status == 200, answer


def test_history_until_the_backup_is_there(site: Site, user: Account, loss: Loss) -> None:
    saved = sorted(loss.saved, key=lambda it: it.job_id)
    for job_id, events in groupby(saved, key=lambda it: it.job_id):
        ids = [event.stream_id for event in events]
        assert site.stored(job_id)[: len(ids)] == ids
    owned = next(it.job_id for it in loss.saved if it.owner == user.id)
    assert request(site.proxy, "GET", f"/api/jobs/{owned}", token=user.token).status == 200


def test_audit_log_verifies(site: Site) -> None:
    assert "are whole" in site.cli("audit", "verify")


def test_clients_keep_trusting_the_certificate(site: Site, loss: Loss) -> None:
    assert site.dev.run("cat", "/etc/ag-ui/tls/server.crt") == loss.certificate


@pytest.mark.parametrize("last", ["saved", "lost"])
def test_clients_are_told_what_is_lost(site: Site, user: Account, loss: Loss, last: str) -> None:
    """Also a client that saw the last event: it cannot know that nothing followed."""
    cursor = getattr(loss, last)[-1].stream_id
    with EventStream(site.proxy, "/events", user.token, last_event_id=cursor) as stream:
        stream.wait(gap_notices, "a gap notice", within=30)
        [notice] = gap_notices(stream)
    assert notice["value"]["after"] == cursor


def test_operator_is_told_what_is_lost(loss: Loss) -> None:
    told = [str(one.result.get("msg", "")) for one in loss.restored.results]
    assert [line for line in told if "entries between" in line and "stream_gone" in line]
    assert [line for line in told if line.startswith("Restored ag-ui-")]


def test_group_goes_on(site: Site, user: Account, loss: Loss, publisher: Publisher) -> None:
    job = Job(owner=user.id)
    with EventStream(site.proxy, "/events", user.token) as stream:
        stream.wait_until_subscribed()
        ids = publisher.publish_all(job.all_events(20))
        stream.wait_for_id(ids[-1])
    eventually(lambda: site.stored(job.id) == ids, "the stored job", within=30)
    site.wait_until_caught_up()
    info: Any = site.redis.xinfo_stream(STREAM)
    assert info["entries-added"] > info["length"]
    assert site.group()["lag"] == 0
    assert ids[0] > loss.stream["last-generated-id"]
