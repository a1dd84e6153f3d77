"""The official client follows every kind of simulated job through the proxy."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from roles.ag_ui_deployment.files.backend.tests.support.official_client import official_clients
from tests.scenarios.support.http import request
from tests.shield import Outcome, crawl_job, ingest_job, legacy_job, query_job, worker_events
from tests.shield.faults import with_duplicates, with_event_after_end, with_unknown_type
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from random import Random

    from roles.ag_ui_deployment.files.backend.tests.support.official_client import (
        Following,
        Held,
        OfficialClient,
    )
    from tests.scenarios.support.site import Account, Site
    from tests.shield import Publisher, ShieldEvent

KINDS: Final = {
    "crawl": (crawl_job, {"pages": 2}),
    "ingest": (ingest_job, {"chunks": 3}),
    "query": (query_job, {}),
    "legacy": (legacy_job, {}),
}
OUTCOMES: Final[dict[Outcome, str]] = {
    "complete": "success",
    "failed": "error",
    "cancelled": "cancelled",
}


@dataclass(frozen=True)
class SimulatedJob:
    """The events of a job and the outcome that clients must see."""

    name: str
    events: Sequence[ShieldEvent]
    outcome: str

    @property
    def id(self) -> str:
        return self.events[0].job_id


def every_job(rng: Random, owner: str) -> list[SimulatedJob]:
    """Return each kind of job with each outcome.

    Some events are repeated, one has an unknown type, and one follows the end.
    """
    jobs = []
    for kind, (make, size) in KINDS.items():
        for outcome, expected in OUTCOMES.items():
            options: dict[str, Any] = {"user_id": owner, "outcome": outcome, **size}
            events = with_event_after_end(
                rng, with_duplicates(rng, with_unknown_type(rng, make(rng, **options)))
            )
            jobs.append(SimulatedJob(f"{kind} {outcome}", events, expected))
    return jobs


@dataclass(frozen=True)
class JobFollower:
    """Follows jobs through the proxy as one user."""

    site: Site
    account: Account
    before: str
    """A stream id before the first event of all jobs."""

    def wait_until_known(self, job: SimulatedJob) -> None:
        path = f"/api/jobs/{job.id}"
        eventually(
            lambda: request(self.site.proxy, "GET", path, token=self.account.token).status == 200,
            f"{job.name} is known",
            within=60,
        )

    def follow(self, client: OfficialClient, job: SimulatedJob, **options: Any) -> Following:
        url = f"https://{self.site.proxy.address}/api/jobs/{job.id}/events"
        return client.follow(url, self.account.token, **options)


def test_official_client_follows_and_resumes_every_kind_of_job(
    site: Site, user: Account, publisher: Publisher, shield_rng: Random, tmp_path: Path
) -> None:
    certificate = tmp_path / "site.crt"
    certificate.write_text(site.dev.run("cat", "/etc/ag-ui/tls/server.crt"))
    before = publisher.publish_all(worker_events(shield_rng))[-1]
    jobs = every_job(shield_rng, user.id)
    publisher.publish_all(job.events[0] for job in jobs)
    follower = JobFollower(site, user, before)
    for job in jobs:
        follower.wait_until_known(job)
    asyncio.run(follow_all(follower, jobs, publisher, certificate))


async def follow_all(
    follower: JobFollower, jobs: Sequence[SimulatedJob], publisher: Publisher, certificate: Path
) -> None:
    async with official_clients(certificate) as clients:
        live = [follower.follow(clients.new(), job) for job in jobs]
        for following in live:
            await following.joined()
        for job in jobs:
            publisher.publish_all(job.events[1:])
        for job, following in zip(jobs, live, strict=True):
            held = await following.held()
            assert (job.name, held.outcome) == (job.name, job.outcome)
            await check_resumed(follower, clients.new(), job, held)


async def check_resumed(
    follower: JobFollower, client: OfficialClient, job: SimulatedJob, uncut: Held
) -> None:
    """A client that is cut halfway and resumes at either instance ends in the same state."""
    cut = {"ids": len({event.event_id for event in job.events}) // 3}
    first_part = await follower.follow(client, job, last_event_id=follower.before, cut=cut).held()
    assert first_part.outcome is None
    held = await follower.follow(client, job).held()
    assert (job.name, held.shown) == (job.name, uncut.shown)
