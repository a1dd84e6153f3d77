"""A fault while browsers listen and Shield publishes, and what must hold when it is over."""

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
"""Events among which there are some for every view."""
JOINED_WITHIN: Final = 30.0
RECOVERED_WITHIN: Final = 60.0
STORED_WITHIN: Final = 60.0
LAG_WITHIN: Final = 10.0
COLLECTED_WITHIN: Final = 75.0
"""Seconds until an instance has collected what it no longer uses; it does so every minute."""


@dataclass(frozen=True)
class Audience:
    """How many browsers see what; 50 in all unless told."""

    all: int = 40
    """The feed of everything."""
    users: int = 4
    """The feed of own jobs, for each of two users."""
    job: int = 2
    """The stream of one job, which lasts as long as the load."""
    stays: float | None = None
    """Seconds until a browser goes away, on average; None: it stays."""
    away: float = 0.0
    """Seconds until it is back."""


@dataclass(frozen=True)
class View:
    """What some of the browsers look at."""

    name: str
    path: str
    account: Account
    sees: Callable[[Published], bool]
    browsers: Sequence[Browser]


@dataclass
class Trial:
    """Load and browsers of one test; `name` is that of its figures."""

    site: Site
    load_clients: LoadClients
    figures: Figures
    name: str
    load: Load
    views: list[View]
    recovers_within: float = RECOVERED_WITHIN
    begun: float = field(default_factory=time.time)
    lost: list[Published] = field(default_factory=list)
    """What Redis took and PostgreSQL never got; known after the block."""
    heard: Mapping[str, Heard] = field(default_factory=dict)
    """What each browser has seen; known after the block."""

    # --- for the block -----------------------------------------------------------------------

    def breaks(self) -> int:
        """How many connections have ended by themselves so far."""
        return sum(notes["breaks"] for notes in self.load_clients.look().values())

    def gaps(self) -> dict[str, list[str]]:
        """The notices of missing events that each browser got."""
        return {name: notes["gaps"] for name, notes in self.load_clients.look().items()}

    def logged(self, event: str) -> list[dict[str, Any]]:
        """What the instances have logged of an event since the trial began."""
        return logged(self.site, event, self.begun)

    def behind(self, count: int) -> list[str]:
        """The browsers that have not seen all of the first so many events."""
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
        """Wait until every browser has seen the first so many events."""

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
        """Let Shield publish what it does in so many seconds."""
        goal = len(self.load.log) + seconds * self.load.per_second
        eventually(lambda: len(self.load.log) >= goal, "more events", within=seconds + 30)

    # --- around it ---------------------------------------------------------------------------

    def begin(self) -> int:
        """Let the browsers in; how many events had been published when all of them were there."""
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
        """The fault is over: wait until everybody is up to date, and everything is stored."""
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
        """Everything that was published is stored once, and every browser saw its part once."""
        rows = stored_rows(self.site, self.load)
        check_stored(self.load, rows)
        self.lost = lost(self.load, rows)
        for view in self.views:
            due = expected(filter(view.sees, self.load.log), rows)
            later = expected(filter(view.sees, self.load.log[joined:]), rows)
            for browser in view.browsers:
                check_heard(browser, self.heard[browser.name], due, later[0])


class UnderLoad:
    """Makes the trials of a site: `with under_load("name of the fault") as trial:`."""

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
        """Whose the jobs of the load are, of which so many go on at a time."""
        _, user, other = self._accounts
        return (user.id, other.id, None, user.id, other.id, None, None, None)

    @contextmanager
    def __call__(  # noqa: PLR0913 - what a test may say of its fault, by name
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
        """Inside, browsers listen and Shield publishes; the fault has to be over at the end.

        `restarts` are the processes that the fault ends, `cuts_streams` says that open streams
        break, `may_lose` that Redis loses events before anyone could store them, and
        `dead_letters` is how many entries the test adds that cannot be stored.
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
