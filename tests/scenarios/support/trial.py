"""A fault under load with connected browsers, and the checks after it."""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from tests.scenarios.support.event_source import Browser, position
from tests.scenarios.support.http import request
from tests.scenarios.support.load import Load
from tests.scenarios.support.oracle import check_heard, check_stored, expected, lost, stored_rows
from tests.scenarios.support.process_metrics import counted, logged, memory, processes
from tests.scenarios.support.waiting import Stopwatch, eventually
from tests.shield import MAXLEN

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from tests.scenarios.support.figures import Figures
    from tests.scenarios.support.load import Published
    from tests.scenarios.support.load_clients import Heard, LoadClients
    from tests.scenarios.support.site import Account, Site

EVENTS_PER_SECOND: Final = 200.0
CALM: Final = 3.0
"""Seconds of load before the fault."""
MEMORY_TOLERANCE: Final = 48.0
"""MiB by which an instance may have grown."""
ROUND: Final = 16
"""Number of events that includes some for every view."""
JOINED_WITHIN: Final = 30.0
RECOVERED_WITHIN: Final = 60.0
STORED_WITHIN: Final = 60.0
LAG_WITHIN: Final = 10.0
COLLECTED_WITHIN: Final = 75.0
"""Seconds until an instance has freed unused memory, which it does every minute."""


@dataclass(frozen=True)
class Audience:
    """The number of browsers per view; 50 in total by default."""

    all: int = 40
    """Browsers of the feed of all jobs."""
    users: int = 4
    """Browsers of the feed of own jobs, for each of two users."""
    job: int = 2
    """Browsers of a single job's stream; the job lasts as long as the load."""
    stays: float | None = None
    """Mean time in seconds until a browser disconnects; None: never."""
    away: float = 0.0
    """Mean time in seconds until it reconnects."""


@dataclass(frozen=True)
class View:
    """A stream that some of the browsers open."""

    name: str
    path: str
    account: Account
    sees: Callable[[Published], bool]
    browsers: Sequence[Browser]


@dataclass
class Trial:
    """The load and browsers of one test; `name` is the prefix of its figures."""

    site: Site
    load_clients: LoadClients
    figures: Figures
    name: str
    load: Load
    views: list[View]
    recovers_within: float = RECOVERED_WITHIN
    begun: float = field(default_factory=time.time)
    lost: list[Published] = field(default_factory=list)
    """Events that Redis accepted and PostgreSQL never received; set after the block."""
    heard: Mapping[str, Heard] = field(default_factory=dict)
    """The events that each browser received; set after the block."""

    # --- during the block --------------------------------------------------------------------

    def breaks(self) -> int:
        """Return the number of unexpected disconnects so far."""
        return sum(notes["breaks"] for notes in self.load_clients.look().values())

    def gaps(self) -> dict[str, list[str]]:
        """Return the gap notices of each browser."""
        return {name: notes["gaps"] for name, notes in self.load_clients.look().items()}

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Return the instances' log entries for an event since the start of the trial."""
        return logged(self.site, event, self.begun)

    def behind(self, count: int) -> list[str]:
        """Return the browsers that have not received all of the first `count` events."""
        seen = {
            name: position(it["newest"] or "0-0") for name, it in self.load_clients.look().items()
        }
        events = self.load.log[:count]
        found = []
        for view in self.views:
            last = next((it for it in reversed(events) if view.sees(it)), None)
            goal = position(last.stream_id) if last else 0
            found += [it.name for it in view.browsers if not it.forgets and seen[it.name] < goal]
        return found

    def wait_until_seen(self, count: int, *, within: float) -> None:
        """Wait until every browser has received the first `count` events."""

        def seen() -> bool:
            published, behind = len(self.load.log), self.behind(count)
            assert published >= count, f"only {published} published"
            assert not behind, f"{len(behind)} behind: {self._notes(behind[:3])}"
            return True

        eventually(
            seen,
            f"{count} events seen by every client",
            within=within,
            every=0.2,
            despite=(AssertionError,),
        )

    def _notes(self, names: Collection[str]) -> dict[str, Any]:
        return {name: notes for name, notes in self.load_clients.look().items() if name in names}

    def wait_for_events(self, seconds: float) -> None:
        """Wait until the load has published as many events as it does in this many seconds."""
        goal = len(self.load.log) + seconds * self.load.per_second
        eventually(lambda: len(self.load.log) >= goal, "more events", within=seconds + 30)

    # --- before and after the block ----------------------------------------------------------

    def begin(self) -> int:
        """Connect the browsers; return how many events were published when all were connected."""
        eventually(
            lambda: all(map(self._is_there, self.views)), "the first job", within=JOINED_WITHIN
        )
        self.load_clients.open(browser for view in self.views for browser in view.browsers)
        eventually(
            lambda: all(notes["newest"] for notes in self.load_clients.look().values()),
            "an event seen by every client",
            within=JOINED_WITHIN,
        )
        joined = len(self.load.log)
        self.wait_for_events(CALM)
        return joined

    def _is_there(self, view: View) -> bool:
        path = view.path.removesuffix("/events")
        return (
            not path
            or request(self.site.proxy, "GET", path, token=view.account.token).status == 200
        )

    def settle(self) -> None:
        """After the fault: wait until all browsers are up to date and all events are stored."""
        watch = Stopwatch()
        self.wait_until_seen(len(self.load.log) + ROUND, within=self.recovers_within)
        self.site.wait_until_healthy(within=RECOVERED_WITHIN)
        self.figures.record(f"recovery_{self.name}", watch.seconds, "s")
        self.load.finish()
        self.wait_until_seen(len(self.load.log), within=RECOVERED_WITHIN)
        self.site.wait_until_caught_up(within=STORED_WITHIN)
        eventually(
            lambda: counted(self.site)["ag_ui_group_lag"] == 0,
            "lag 0 as the instances tell it",
            within=LAG_WITHIN,
            every=0.5,
        )
        self.heard = self.load_clients.close()

    def check(self, joined: int) -> None:
        """Check that each event is stored once and received once by each of its browsers."""
        rows = stored_rows(self.site, self.load)
        check_stored(self.load, rows)
        self.lost = lost(self.load, rows)
        for view in self.views:
            due = expected(filter(view.sees, self.load.log), rows)
            later = expected(filter(view.sees, self.load.log[joined:]), rows)
            for browser in view.browsers:
                check_heard(browser, self.heard[browser.name], due, later[0])


class UnderLoad:
    """Creates the trials of a site: `with under_load("name of the fault") as trial:`."""

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
        audience: Audience = Audience(),
        recovers_within: float = RECOVERED_WITHIN,
    ) -> Iterator[Trial]:
        """Run the load with connected browsers; the fault must be over at the end of the block.

        Args:
            name: The name of the fault, for the figures.
            restarts: The processes that the fault ends, by their names in processes().
            cuts_streams: Whether open streams break.
            may_lose: Whether Redis loses events before they can be stored.
            dead_letters: The number of entries from the test that cannot be stored.
            maxlen: The maximum length of the stream.
            per_second: The rate of events.
            audience: The number of browsers.
            recovers_within: Seconds for the browsers to catch up after the fault.
        """
        site, load_clients = self._site, self._load_clients
        processes_before, memory_before = processes(site), memory(site)
        letters_before = _dead_letters(site)
        admin, user, other = self._accounts
        with (
            Load(site.redis_url, self.owners, per_second=per_second, maxlen=maxlen) as load,
            ExitStack() as stack,
        ):
            stack.callback(load_clients.close)
            views = _views(audience, load.longest.id, admin, user, other)
            this = Trial(site, load_clients, self._figures, name, load, views, recovers_within)
            joined = this.begin()
            yield this
            this.settle()
        # The log says why a browser was refused, so it comes first.
        failed = this.logged("request_failed")
        assert not failed, f"{len(failed)} unexpected errors: {failed[:2]}"
        this.check(joined)
        assert may_lose or not this.lost, f"{len(this.lost)} lost: {this.lost[:3]}"
        assert _dead_letters(site) == letters_before + dead_letters
        breaks = sum(heard.notes["breaks"] for heard in this.heard.values())
        assert cuts_streams or not breaks, f"{breaks} connections broke"
        _check_processes(site, processes_before, restarts)
        _check_memory(this, memory_before)


def _views(
    audience: Audience, job: str, admin: Account, user: Account, other: Account
) -> list[View]:
    def view(
        name: str, account: Account, clients: int, sees: Callable[[Published], bool], path: str
    ) -> View:
        browsers = [
            Browser(
                name=f"{name}-{number}",
                path=path,
                token=account.token,
                judged=number == 0,
                ends=path != "/events",
                stays=audience.stays,
                away=audience.away,
                forgets=audience.stays is not None and number % 2 == 1,
            )
            for number in range(clients)
        ]
        return View(name, path, account, sees, browsers)

    return [
        view("all", admin, audience.all, lambda _: True, "/events"),
        view("user", user, audience.users, lambda it: it.owner == user.id, "/events"),
        view("other", other, audience.users, lambda it: it.owner == other.id, "/events"),
        view("job", user, audience.job, lambda it: it.job_id == job, f"/api/jobs/{job}/events"),
    ]


def _dead_letters(site: Site) -> int:
    return int(site.sql("SELECT count(*) FROM dead_letters")[0])


def _check_processes(site: Site, before: Mapping[str, str], restarts: Collection[str]) -> None:
    after = processes(site)
    changed = {name for name, identity in after.items() if identity != before[name]}
    assert changed == set(restarts), f"restarted: {sorted(changed)}, expected: {sorted(restarts)}"


def _check_memory(this: Trial, before: Mapping[int, float]) -> None:
    after: Mapping[int, float] = before

    def growth() -> float:
        return max(after[port] - before[port] for port in after)

    def is_back() -> bool:
        nonlocal after
        after = memory(this.site)
        return growth() <= MEMORY_TOLERANCE

    try:
        eventually(is_back, "memory back to where it was", within=COLLECTED_WITHIN, every=1.0)
    finally:
        remark = "; ".join(f"{port}: {before[port]:.0f} to {after[port]:.0f} MiB" for port in after)
        this.figures.record(f"memory_growth_{this.name}", growth(), "MiB", remark)
