"""A fault under load with connected browsers, and the checks after it."""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from tests.scenarios.support.delivery_checks import (
    check_received,
    check_stored,
    expected_positions,
    lost_events,
    stored_rows,
)
from tests.scenarios.support.event_source import Browser, position
from tests.scenarios.support.http import request
from tests.scenarios.support.load import Load
from tests.scenarios.support.process_metrics import counted, logged, memory, processes
from tests.shield import MAXLEN
from tests.support.waiting import Stopwatch, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from tests.scenarios.support.figures import Figures
    from tests.scenarios.support.load import Published
    from tests.scenarios.support.load_clients import ClientResult, LoadClients
    from tests.scenarios.support.site import Account, Site

EVENTS_PER_SECOND: Final = 200.0
WARM_UP: Final = 3.0
"""Seconds of load before the fault."""
MEMORY_TOLERANCE: Final = 48.0
"""MiB by which an instance may have grown: what it buffers for a moment fragments its heap."""
EVENTS_FOR_EVERY_VIEW: Final = 16
"""Number of events that includes some for every view."""
CONNECTED_WITHIN: Final = 30.0
RECOVERED_WITHIN: Final = 60.0
STORED_WITHIN: Final = 60.0
LAG_WITHIN: Final = 10.0
COLLECTED_WITHIN: Final = 75.0
"""Seconds until an instance has freed unused memory, which it does every minute."""


@dataclass(frozen=True)
class ClientCounts:
    """The number of browsers per view; 50 in total by default."""

    all: int = 40
    """Browsers of the feed of all jobs."""
    users: int = 4
    """Browsers of the feed of own jobs, for each of two users."""
    job: int = 2
    """Browsers of a single job's stream; the job lasts as long as the load."""
    mean_connected: float | None = None
    """Mean time in seconds until a browser disconnects; None: never."""
    mean_disconnected: float = 0.0
    """Mean time in seconds until it reconnects."""


@dataclass(frozen=True)
class Subscription:
    """A stream that some of the browsers open."""

    name: str
    path: str
    account: Account
    includes: Callable[[Published], bool]
    browsers: Sequence[Browser]


@dataclass
class Experiment:
    """The load and browsers of one test; `name` is the prefix of its figures."""

    site: Site
    load_clients: LoadClients
    figures: Figures
    name: str
    load: Load
    subscriptions: list[Subscription]
    started_at: float = field(default_factory=time.time)
    lost: list[Published] = field(default_factory=list)
    """Events that Redis accepted and PostgreSQL never received; set after the block."""
    results: Mapping[str, ClientResult] = field(default_factory=dict)
    """The events that each browser received; set after the block."""

    # --- during the block --------------------------------------------------------------------

    def disconnects(self) -> int:
        """Return the number of unexpected disconnects so far."""
        return sum(stats["disconnects"] for stats in self.load_clients.stats().values())

    def gaps(self) -> dict[str, list[str]]:
        """Return the gap notices of each browser."""
        return {name: stats["gaps"] for name, stats in self.load_clients.stats().items()}

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Return the instances' log entries for an event since the start of the experiment."""
        return logged(self.site, event, self.started_at)

    def clients_behind(self, count: int) -> list[str]:
        """Return the browsers that have not received all of the first `count` events."""
        seen = {
            name: position(it["newest"] or "0-0") for name, it in self.load_clients.stats().items()
        }
        events = self.load.log[:count]
        found = []
        for subscription in self.subscriptions:
            last = next((it for it in reversed(events) if subscription.includes(it)), None)
            target = position(last.stream_id) if last else 0
            found += [
                it.name
                for it in subscription.browsers
                if not it.starts_new_session and seen[it.name] < target
            ]
        return found

    def wait_until_received(
        self, count: int, *, within: float, progress: Callable[[], object] = lambda: None
    ) -> None:
        """Wait until every browser has received the first `count` events.

        Args:
            count: The number of events.
            within: Deadline in seconds.
            progress: As in eventually().
        """

        def seen() -> bool:
            published, clients_behind = len(self.load.log), self.clients_behind(count)
            assert published >= count, f"only {published} published"
            assert not clients_behind, (
                f"{len(clients_behind)} behind: {self._stats_of(clients_behind[:3])}"
            )
            return True

        eventually(
            seen,
            f"{count} events received by every client",
            within=within,
            every=0.2,
            ignoring=(AssertionError,),
            progress=progress,
        )

    def _wait_until_caught_up(self, count: int) -> None:
        """As wait_until_received(), but the deadline moves while browsers that are behind receive events."""

        def newest() -> dict[str, str | None]:
            behind = self._stats_of(self.clients_behind(count))
            return {name: stats["newest"] for name, stats in behind.items()}

        self.wait_until_received(count, within=RECOVERED_WITHIN, progress=newest)

    def _stats_of(self, names: Collection[str]) -> dict[str, Any]:
        return {name: stats for name, stats in self.load_clients.stats().items() if name in names}

    def wait_for_events(self, seconds: float) -> None:
        """Wait until the load has published as many events as it does in this many seconds."""
        target = len(self.load.log) + seconds * self.load.per_second
        eventually(lambda: len(self.load.log) >= target, "more events", within=seconds + 30)

    # --- before and after the block ----------------------------------------------------------

    def connect_clients(self) -> int:
        """Connect the browsers; return how many events were published when all were connected."""
        eventually(
            lambda: all(map(self._is_available, self.subscriptions)),
            "the first job",
            within=CONNECTED_WITHIN,
        )
        self.load_clients.open(
            browser for subscription in self.subscriptions for browser in subscription.browsers
        )
        eventually(
            lambda: all(stats["newest"] for stats in self.load_clients.stats().values()),
            "an event received by every client",
            within=CONNECTED_WITHIN,
        )
        connected_at = len(self.load.log)
        self.wait_for_events(WARM_UP)
        return connected_at

    def _is_available(self, subscription: Subscription) -> bool:
        path = subscription.path.removesuffix("/events")
        return (
            not path
            or request(self.site.proxy, "GET", path, token=subscription.account.token).status == 200
        )

    def wait_until_recovered(self) -> None:
        """After the fault: wait until all browsers are up to date and all events are stored."""
        watch = Stopwatch()
        self._wait_until_caught_up(len(self.load.log) + EVENTS_FOR_EVERY_VIEW)
        self.site.wait_until_healthy(within=RECOVERED_WITHIN)
        self.figures.record(f"recovery_{self.name}", watch.seconds, "s")
        self.load.finish()
        self._wait_until_caught_up(len(self.load.log))
        self.site.wait_until_caught_up(within=STORED_WITHIN)
        eventually(
            lambda: counted(self.site)["ag_ui_group_lag"] == 0,
            "a reported lag of 0",
            within=LAG_WITHIN,
            every=0.5,
        )
        self.results = self.load_clients.close()

    def check(self, connected_at: int) -> None:
        """Check that each event is stored once and received once by each of its browsers."""
        rows = stored_rows(self.site, self.load)
        check_stored(self.load, rows)
        self.lost = lost_events(self.load, rows)
        again = (event for event in self.load.log if event.event_id in self.load.retried)
        retried = set(expected_positions(again, rows))
        for subscription in self.subscriptions:
            all_expected = expected_positions(filter(subscription.includes, self.load.log), rows)
            expected_after_connect = expected_positions(
                filter(subscription.includes, self.load.log[connected_at:]), rows
            )
            for browser in subscription.browsers:
                check_received(
                    browser,
                    self.results[browser.name],
                    all_expected,
                    expected_after_connect[0],
                    retried,
                )


class ExperimentFactory:
    """Creates experiments: `with under_load("name of the fault") as experiment:`."""

    def __init__(
        self,
        site: Site,
        load_clients: LoadClients,
        figures: Figures,
        accounts: tuple[Account, Account, Account],
    ) -> None:
        self._site = site
        self._load_clients = load_clients
        self._figures = figures
        self._accounts = accounts
        """An administrator, who sees everything, and two users."""

    @property
    def owners(self) -> tuple[str | None, ...]:
        """The owners of the load's concurrent jobs."""
        _, user, other = self._accounts
        return (user.id, other.id, None, user.id, other.id, None, None, None)

    @contextmanager
    def __call__(  # noqa: PLR0913 - keyword arguments
        self,
        name: str,
        *,
        restarts: Collection[str] = (),
        cuts_streams: bool = False,
        may_lose: bool = False,
        dead_letters: int = 0,
        maxlen: int = MAXLEN,
        per_second: float = EVENTS_PER_SECOND,
        clients: ClientCounts = ClientCounts(),
        memory_tolerance: float = MEMORY_TOLERANCE,
    ) -> Iterator[Experiment]:
        """Run the load with connected browsers; the fault must be over at the end of the block.

        Args:
            name: The name of the fault, for the figures.
            restarts: The processes that the fault ends, by their names in processes().
            cuts_streams: Whether open streams break.
            may_lose: Whether Redis loses events before they can be stored.
            dead_letters: The number of entries from the test that cannot be stored.
            maxlen: The maximum length of the stream.
            per_second: The rate of events.
            clients: The number of browsers.
            memory_tolerance: MiB by which an instance may have grown.
        """
        site, load_clients = self._site, self._load_clients
        processes_before, memory_before = processes(site), memory(site)
        dead_letters_before = _dead_letters(site)
        admin, user, other = self._accounts
        with (
            Load(
                site.redis_url,
                self.owners,
                per_second=per_second,
                maxlen=maxlen,
                redis=site.producer_redis(),
            ) as load,
            ExitStack() as stack,
        ):
            stack.callback(load_clients.close)
            subscriptions = _subscriptions(clients, load.longest.id, admin, user, other)
            experiment = Experiment(site, load_clients, self._figures, name, load, subscriptions)
            connected_at = experiment.connect_clients()
            yield experiment
            experiment.wait_until_recovered()
        # The log says why a browser was refused, so it comes first.
        failed = experiment.logged("request_failed")
        assert not failed, f"{len(failed)} unexpected errors: {failed[:2]}"
        experiment.check(connected_at)
        assert may_lose or not experiment.lost, (
            f"{len(experiment.lost)} lost: {experiment.lost[:3]}"
        )
        assert _dead_letters(site) == dead_letters_before + dead_letters
        disconnects = sum(result.stats["disconnects"] for result in experiment.results.values())
        assert cuts_streams or not disconnects, f"{disconnects} connections were closed"
        _check_processes(site, processes_before, restarts)
        _check_memory(experiment, memory_before, memory_tolerance)


def _subscriptions(
    clients: ClientCounts, job: str, admin: Account, user: Account, other: Account
) -> list[Subscription]:
    def subscription(
        name: str, account: Account, count: int, includes: Callable[[Published], bool], path: str
    ) -> Subscription:
        browsers = [
            Browser(
                name=f"{name}-{number}",
                path=path,
                token=account.token,
                checked=number == 0,
                ends_with_run=path != "/events",
                mean_connected=clients.mean_connected,
                mean_disconnected=clients.mean_disconnected,
                starts_new_session=clients.mean_connected is not None and number % 2 == 1,
            )
            for number in range(count)
        ]
        return Subscription(name, path, account, includes, browsers)

    return [
        subscription("all", admin, clients.all, lambda _: True, "/events"),
        subscription("user", user, clients.users, lambda it: it.owner == user.id, "/events"),
        subscription("other", other, clients.users, lambda it: it.owner == other.id, "/events"),
        subscription(
            "job", user, clients.job, lambda it: it.job_id == job, f"/api/jobs/{job}/events"
        ),
    ]


def _dead_letters(site: Site) -> int:
    return int(site.sql("SELECT count(*) FROM dead_letters")[0])


def _check_processes(site: Site, before: Mapping[str, str], restarts: Collection[str]) -> None:
    after = processes(site)
    changed = {name for name, identity in after.items() if identity != before[name]}
    assert changed == set(restarts), f"restarted: {sorted(changed)}, expected: {sorted(restarts)}"


def _check_memory(experiment: Experiment, before: Mapping[int, float], tolerance: float) -> None:
    after: Mapping[int, float] = before

    def growth() -> float:
        return max(after[port] - before[port] for port in after)

    def described() -> str:
        return "; ".join(f"{port}: {before[port]:.0f} to {after[port]:.0f} MiB" for port in after)

    def is_within_tolerance() -> bool:
        nonlocal after
        after = memory(experiment.site)
        assert growth() <= tolerance, described()
        return True

    try:
        eventually(
            is_within_tolerance,
            "memory within the tolerance",
            within=COLLECTED_WITHIN,
            every=1.0,
            ignoring=(AssertionError,),
        )
    finally:
        experiment.figures.record(f"memory_growth_{experiment.name}", growth(), "MiB", described())
