"""Finds the feeds of a record, at a cost that does not depend on the number of feeds.

The scope of a user includes the user's own jobs, so two admins of the same workspaces do not share
a feed. A record of a workspace therefore goes to one feed for each of its connected admins.
"""

from collections.abc import Iterator, Sequence

from src.models.visibility import EVERYTHING, OwnerScope, Visibility
from src.models.workspace import DEFAULT_WORKSPACE
from src.services.events.feed import Feed, FeedLimits, FeedRecord
from src.services.events.subscription import Scope

# All clients of one job share a feed. Each inspects the records that change the ownership of the
# job.
Key = Visibility | str


class FeedIndex:
    """The feeds of one protocol version, by owner and workspace."""

    def __init__(self, limits: FeedLimits) -> None:
        self._limits = limits
        self._feeds: dict[Key, Feed] = {}
        self._at: dict[OwnerScope, list[Feed]] = {}

    def __iter__(self) -> Iterator[Feed]:
        return iter(self._feeds.values())

    def __len__(self) -> int:
        return len(self._feeds)

    def open(self, scope: Scope) -> Feed:
        """Returns the feed of a scope; clients of equal scopes share one."""
        key = _key(scope)
        feed = self._feeds.get(key)
        if feed is None:
            feed = self._feeds[key] = Feed(self._limits, scope.looks_at)
            for place in _places(key):
                self._at.setdefault(place, []).append(feed)
        return feed

    def get(self, scope: Scope) -> Feed:
        return self._feeds[_key(scope)]

    def remove(self, scope: Scope) -> None:
        key = _key(scope)
        feed = self._feeds.pop(key)
        for place in _places(key):
            self._at[place].remove(feed)
            if not self._at[place]:
                del self._at[place]

    def sort(self, records: Sequence[FeedRecord]) -> dict[Feed, Sequence[FeedRecord]]:
        """Returns the records for each feed."""
        everything = self._feeds.get(EVERYTHING)
        news: dict[Feed, Sequence[FeedRecord]] = {}
        if everything is not None and records:
            news[everything] = records
        if len(self._feeds) > len(news):
            news |= self._sorted_by_job(records)
        return news

    def _sorted_by_job(self, records: Sequence[FeedRecord]) -> dict[Feed, list[FeedRecord]]:
        found: dict[Feed, list[FeedRecord]] = {}
        for record in records:
            if (state := record.after) is None:
                continue
            workspace = state.workspace or DEFAULT_WORKSPACE
            for feed in self._at.get(OwnerScope(None, workspace), ()):
                found.setdefault(feed, []).append(record)
            if state.owner is not None:
                for feed in self._at.get(OwnerScope(state.owner, workspace), ()):
                    found.setdefault(feed, []).append(record)
            if feed_of_job := self._feeds.get(state.job_id):
                found.setdefault(feed_of_job, []).append(record)
        return found


def _key(scope: Scope) -> Key:
    return scope.visibility if scope.job_id is None else scope.job_id


def _places(key: Key) -> Iterator[OwnerScope]:
    return key.scopes() if isinstance(key, Visibility) else iter(())
