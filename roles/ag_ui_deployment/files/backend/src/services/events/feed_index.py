"""Finds the feeds of a record, at a cost that does not depend on the number of feeds.

The scope of a user includes the user's own jobs, so two admins of the same workspaces do not share
a feed. A record of a workspace therefore goes to one feed for each of its connected admins.
"""

from collections.abc import Iterator, Sequence

from src.models.visibility import EVERYTHING, OwnerScope, Visibility
from src.models.workspace import DEFAULT_WORKSPACE
from src.services.events.feed import Feed, FeedLimits, FeedRecord
from src.services.events.subscription import JobScope

# All clients of one job share a feed. Each inspects the records that change the ownership of the
# job.
FeedKey = Visibility | str


class FeedIndex:
    """The feeds of one protocol version, by owner and workspace."""

    def __init__(self, limits: FeedLimits) -> None:
        self._limits = limits
        self._feeds: dict[FeedKey, Feed] = {}
        self._feeds_by_owner_scope: dict[OwnerScope, list[Feed]] = {}

    def __iter__(self) -> Iterator[Feed]:
        return iter(self._feeds.values())

    def __len__(self) -> int:
        return len(self._feeds)

    def get_or_create(self, scope: JobScope) -> Feed:
        """Returns the feed of a scope; clients of equal scopes share one."""
        key = _key(scope)
        feed = self._feeds.get(key)
        if feed is None:
            feed = self._feeds[key] = Feed(self._limits, scope.needs_inspection)
            for owner_scope in _owner_scopes(key):
                self._feeds_by_owner_scope.setdefault(owner_scope, []).append(feed)
        return feed

    def get(self, scope: JobScope) -> Feed:
        return self._feeds[_key(scope)]

    def remove(self, scope: JobScope) -> None:
        key = _key(scope)
        feed = self._feeds.pop(key)
        for owner_scope in _owner_scopes(key):
            self._feeds_by_owner_scope[owner_scope].remove(feed)
            if not self._feeds_by_owner_scope[owner_scope]:
                del self._feeds_by_owner_scope[owner_scope]

    def route(self, records: Sequence[FeedRecord]) -> dict[Feed, Sequence[FeedRecord]]:
        """Returns the records for each feed."""
        unrestricted_feed = self._feeds.get(EVERYTHING)
        routed: dict[Feed, Sequence[FeedRecord]] = {}
        if unrestricted_feed is not None and records:
            routed[unrestricted_feed] = records
        if len(self._feeds) > len(routed):
            routed |= self._route_by_job(records)
        return routed

    def _route_by_job(self, records: Sequence[FeedRecord]) -> dict[Feed, list[FeedRecord]]:
        routed: dict[Feed, list[FeedRecord]] = {}
        for record in records:
            if (state := record.after) is None:
                continue
            workspace = state.workspace or DEFAULT_WORKSPACE
            for feed in self._feeds_by_owner_scope.get(OwnerScope(None, workspace), ()):
                routed.setdefault(feed, []).append(record)
            if state.owner is not None:
                for feed in self._feeds_by_owner_scope.get(OwnerScope(state.owner, workspace), ()):
                    routed.setdefault(feed, []).append(record)
            if job_feed := self._feeds.get(state.job_id):
                routed.setdefault(job_feed, []).append(record)
        return routed


def _key(scope: JobScope) -> FeedKey:
    return scope.visibility if scope.job_id is None else scope.job_id


def _owner_scopes(key: FeedKey) -> Iterator[OwnerScope]:
    return key.scopes() if isinstance(key, Visibility) else iter(())
