"""Unusual stream content: a large backlog, and entries that cannot be parsed."""

from __future__ import annotations

from functools import partial
from random import Random
from typing import TYPE_CHECKING

from tests.scenarios.support.experiment import ClientCounts
from tests.scenarios.support.jobs import Job
from tests.shield import Malformed
from tests.shield.faults import enlarged, malformed
from tests.support.waiting import Stopwatch, eventually

if TYPE_CHECKING:
    from tests.scenarios.support.experiment import ExperimentFactory
    from tests.scenarios.support.figures import Figures
    from tests.scenarios.support.site import Site
    from tests.shield import Entry, Publisher

BACKLOG = 100_000
STALLED_AFTER = 60.0
MEMORY_TOLERANCE = 96.0
"""MiB. An instance that kept the whole backlog would grow by about 250."""
MEBIBYTE = 1024 * 1024
LEVELS = 10_000


def test_backlog_of_100000_events_is_stored_and_delivered(
    site: Site, under_load: ExperimentFactory, figures: Figures
) -> None:
    """Published while the backend was down. Administrators see all of it, others their own jobs."""
    instances = {f"instance {port}" for port in site.ports}
    with under_load(
        "backlog",
        restarts=instances,
        cuts_streams=True,
        maxlen=2 * BACKLOG,
        clients=ClientCounts(all=2, users=23),
        memory_tolerance=MEMORY_TOLERANCE,
    ) as experiment:
        with site.dev.stopped("ag-ui.target"):
            site.wait_until_gone()
            for _ in range(BACKLOG // 500):
                experiment.load.publish_all(Job().all_events(500))
        watch = Stopwatch()
        eventually(
            lambda: site.group()["lag"] < 100,
            "the backlog stored",
            within=STALLED_AFTER,
            progress=lambda: site.group()["last-delivered-id"],
        )
        figures.record("backlog_stored_per_second", BACKLOG / watch.seconds, "1/s")


def nested(job: Job) -> Malformed:
    """Return an event whose data is nested deeper than any parser accepts."""
    event = job.chunk()
    data = b'{"deeper":' * LEVELS + b"1" + b"}" * LEVELS
    return Malformed("nested", event.at, {**event.fields(), b"data": data})


def test_malformed_entries_become_dead_letters_under_load(
    site: Site, under_load: ExperimentFactory, publisher: Publisher
) -> None:
    """Poison goes to the dead letters with a reason; a duplicate event is shown once."""
    with under_load("poison", dead_letters=3) as experiment:
        job = Job()
        experiment.load.publish_all([job.started()])
        at = job.chunk().at
        poison: dict[str, Entry] = {
            "bytes": enlarged(Random(1), job.chunk(), size=5 * MEBIBYTE),
            "UTF-8": malformed(Random(2), at, "data is not UTF-8"),
            "JSON": nested(job),
        }
        ids = {word: publisher.publish(entry) for word, entry in poison.items()}
        duplicate = job.chunk()
        experiment.load.retried.add(duplicate.event_id)
        experiment.load.publish_all([duplicate, duplicate, job.complete()])
        for word, stream_id in ids.items():
            reason = eventually(partial(site.dead_letter, stream_id), "a dead letter", within=10)
            assert word in reason, reason
