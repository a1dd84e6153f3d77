"""`python -m tests.shield publish`: publish a typical mix of jobs at a given rate and duration."""

from __future__ import annotations

import argparse
import heapq
import itertools
import math
import os
import signal
import sys
import threading
import time
from datetime import UTC, datetime
from random import Random
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit
from uuid import UUID

from redis.exceptions import RedisError

from tests.shield.envelope import STREAM, Entry
from tests.shield.faults import with_due_times, with_random_faults
from tests.shield.jobs import any_job, worker_events
from tests.shield.publisher import Publisher, Stopped, address_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

URL_VARIABLE: Final = "AG_UI_REDIS_URL"


def redis_url(text: str) -> str:
    """Validate a Redis URL. Errors do not repeat it, because it may hold a password."""
    try:
        parts = urlsplit(text)
        valid = parts.scheme in {"redis", "rediss"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise argparse.ArgumentTypeError("not of the form redis://[:PASSWORD@]HOST[:PORT][/DB]")
    return text


def positive_number(text: str) -> float:
    """Parse a number above zero."""
    number = float(text)
    if not (math.isfinite(number) and number > 0):
        raise argparse.ArgumentTypeError(f"{text} is not above zero")
    return number


def positive_integer(text: str) -> int:
    """Parse a whole number above zero."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above zero")
    return number


def parser() -> argparse.ArgumentParser:
    """Build the argument parser."""
    top = argparse.ArgumentParser(prog="python -m tests.shield", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    publish = commands.add_parser("publish", help="publish jobs to the stream until stopped")
    publish.add_argument(
        "--redis-url",
        type=redis_url,
        metavar="URL",
        help=f"where to publish; better given as {URL_VARIABLE}, which `ps` does not show",
    )
    publish.add_argument("--stream", default=STREAM, help="default: %(default)s")
    publish.add_argument(
        "--rate",
        type=positive_number,
        default=6.0,
        metavar="JOBS_PER_MINUTE",
        help="how many jobs begin in a minute, on average (default: %(default)s)",
    )
    publish.add_argument(
        "--speed",
        type=positive_number,
        default=1.0,
        metavar="FACTOR",
        help="run each job so many times as fast as Shield would (default: %(default)s)",
    )
    publish.add_argument("--jobs", type=positive_integer, metavar="N", help="end after N jobs")
    publish.add_argument("--seed", type=int, metavar="N", help="the same seed gives the same jobs")
    publish.add_argument("--user-id", type=UUID, metavar="UUID", help="the owner of every job")
    publish.add_argument(
        "--workspace", default="default", metavar="NAME", help="default: %(default)s"
    )
    publish.add_argument(
        "--faults",
        action="store_true",
        help="repeats, late events, holes, unknown types and malformed entries among them",
    )
    return top


def log(message: str) -> None:
    """Print a log line with the time."""
    print(f"{datetime.now(UTC):%H:%M:%S} {message}", flush=True)  # noqa: T201 - the program's log


def jobs_with_start_times(
    options: argparse.Namespace, rng: Random
) -> Iterator[tuple[float, str, Sequence[Entry]]]:
    """Yield start time in seconds, description and entries of each job."""
    owner = str(options.user_id) if options.user_id else None
    begin, count = 0.0, 0
    yield 0.0, "worker pool", worker_events(rng)
    while options.jobs is None or count < options.jobs:
        count += 1
        events = any_job(rng, user_id=owner, workspace=options.workspace)
        entries: Sequence[Entry] = with_random_faults(rng, events) if options.faults else events
        yield begin, f"job {events[0].job_id}", entries
        begin += rng.expovariate(options.rate / 60)


class Schedule:
    """Interleaves the jobs and publishes each entry when it is due."""

    def __init__(
        self, options: argparse.Namespace, publisher: Publisher, stop: threading.Event
    ) -> None:
        self._options = options
        self._publisher = publisher
        self._stop = stop
        self._due: list[tuple[float, int, Entry]] = []
        self._tie = itertools.count()
        self.jobs = 0
        self.entries = 0

    def run(self) -> None:
        """Publish all jobs. Raises Stopped if the stop event is set before."""
        started_at = time.monotonic()
        rng = Random(self._options.seed)
        for begin, name, entries in jobs_with_start_times(self._options, rng):
            self._publish_until(started_at, begin)
            timed_entries = with_due_times(entries, self._options.speed)
            log(f"{name}: {len(timed_entries)} entries in {timed_entries[-1][0]:.0f} s")
            for seconds, entry in timed_entries:
                heapq.heappush(self._due, (begin + seconds, next(self._tie), entry))
            self.jobs += name.startswith("job ")
        self._publish_until(started_at, math.inf)

    def _publish_until(self, started_at: float, end: float) -> None:
        while self._due and self._due[0][0] <= end:
            due, _, entry = heapq.heappop(self._due)
            self._wait(started_at + due)
            self._publisher.publish(entry)
            self.entries += 1
        if math.isfinite(end):
            self._wait(started_at + end)

    def _wait(self, moment: float) -> None:
        if self._stop.wait(max(0.0, moment - time.monotonic())):
            raise Stopped


def publish(options: argparse.Namespace, url: str) -> int:
    """Publish until done or stopped; return the exit status."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    publisher = Publisher(url, stream=options.stream, stop=stop, notice=log)
    schedule = Schedule(options, publisher, stop)
    log(f"publishing to {options.stream} at {address_of(url)}")
    try:
        schedule.run()
    except Stopped:
        log("stopped")
    except RedisError as error:
        sys.stderr.write(f"Redis at {address_of(url)} refuses: {error}\n")
        return 1
    finally:
        publisher.close()
    log(f"published {schedule.entries} entries of {schedule.jobs} jobs")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; wrong arguments end it with the usage and status 2."""
    top = parser()
    options = top.parse_args(arguments)
    url = options.redis_url
    if url is None:
        try:
            url = redis_url(os.environ.get(URL_VARIABLE, ""))
        except argparse.ArgumentTypeError as error:
            top.error(f"no --redis-url, and {URL_VARIABLE} is {error}")
    return publish(options, url)


if __name__ == "__main__":
    sys.exit(main())
