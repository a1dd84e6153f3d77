"""Verifies the audit log: every link, every checkpoint, the beginning and the end.

Bounded in memory and in the time of each query, whatever the length of the log. What is appended
meanwhile is not waited for.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from src.models.audit import BrokenLink, CheckpointRow, Purpose, Verification
from src.repositories import audit as audit_rows
from src.services.audit_chain import START, Head, Link, digest
from src.services.audit_keys import AuditKeys
from src.utils.database import Database
from src.utils.event_loop import in_turns

_PAGE = 500
_BEFORE_ALL = -(2**63)

# Hashes that entries must have, by their number: those that somebody has signed or noted.
Claims = Mapping[int, bytes]


@dataclass(slots=True)
class _Checkpoints:
    """What the checkpoints say by themselves."""

    count: int = 0
    number: int | None = None
    released: Head | None = None
    furthest: int = 0
    broken: BrokenLink | None = None


@dataclass(slots=True)
class _Walk:
    """How far the links hold. `released` is the last entry that was let go, where any was."""

    released: Head
    first: int | None = None
    last: Head = field(default=START)
    broken: BrokenLink | None = None


class AuditVerifier:
    def __init__(self, database: Database, keys: AuditKeys) -> None:
        self._database = database
        self._keys = keys

    async def verify(self, noted: Sequence[Head] = ()) -> Verification:
        """`noted` are places of the chain that are known from elsewhere, as from the journal."""
        while True:
            began_at = await self._oldest()
            found = await self._verify(noted)
            # Retention takes entries away at the beginning, under the feet of whoever reads there.
            if found.intact or await self._oldest() == began_at:
                return found

    async def _oldest(self) -> int | None:
        async with self._database.transaction() as session:
            return await audit_rows.oldest_seq(session)

    async def _verify(self, noted: Sequence[Head]) -> Verification:
        checkpoints = await self._read_checkpoints()
        walk = await self._walk(checkpoints.released or START, dict(noted))
        furthest = max((checkpoints.furthest, *(place.seq for place in noted)))
        faults = [walk.broken, checkpoints.broken]
        if walk.broken is None:
            faults.append(_fault_of_end(walk, furthest))
        return Verification(
            intact=not any(faults),
            first_seq=walk.first,
            last_seq=walk.last.seq if walk.first else None,
            checkpoints=checkpoints.count,
            broken=min((one for one in faults if one), key=lambda one: one.seq, default=None),
        )

    async def _read_checkpoints(self) -> _Checkpoints:
        found = _Checkpoints()
        number = 0
        while rows := await self._checkpoints_after(number):
            for row in rows:
                self._take(found, row)
            number = rows[-1].number
        return found

    def _take(self, found: _Checkpoints, row: CheckpointRow) -> None:
        found.count += 1
        fault = self._keys.fault_of(row)
        if fault is None and found.number is not None and row.number != found.number + 1:
            fault = f"checkpoints are missing: number {found.number} is followed by {row.number}"
        found.number = row.number
        if fault is not None:
            found.broken = found.broken or BrokenLink(seq=row.seq, reason=fault)
            return
        found.furthest = max(found.furthest, row.seq)
        if row.purpose == Purpose.RETENTION and row.seq > (found.released or START).seq:
            found.released = Head(row.seq, row.hash)

    async def _checkpoints_after(self, number: int) -> list[CheckpointRow]:
        async with self._database.transaction() as session:
            return await audit_rows.checkpoints_after(session, number, _PAGE)

    async def _walk(self, released: Head, noted: Claims) -> _Walk:
        walk = _Walk(released)
        async for page in self._pages():
            claims = await self._claims(page[0].seq, page[-1].seq)
            async for link in in_turns(page):
                claimed = (*claims.get(link.seq, ()), noted.get(link.seq))
                walk.broken = _fault_of(link, walk, claimed)
                if walk.broken is not None:
                    return walk
                walk.first = walk.first or link.seq
                walk.last = link.head
        return walk

    async def _pages(self) -> AsyncIterator[list[Link]]:
        async with self._database.transaction() as session:
            end = await audit_rows.head(session)
        seq = _BEFORE_ALL
        while end is not None and seq < end.seq:
            async with self._database.transaction() as session:
                page = await audit_rows.after(session, seq, _PAGE)
            if not page:
                return
            yield page
            seq = page[-1].seq

    async def _claims(self, first: int, last: int) -> dict[int, list[bytes]]:
        """The hashes that believable checkpoints give to entries."""
        async with self._database.transaction() as session:
            rows = await audit_rows.checkpoints_between(session, first, last)
        claims: dict[int, list[bytes]] = {}
        for row in rows:
            if self._keys.fault_of(row) is None:
                claims.setdefault(row.seq, []).append(row.hash)
        return claims


def _fault_of(link: Link, walk: _Walk, claims: Iterable[bytes | None]) -> BrokenLink | None:
    if walk.first is None:
        fault = _fault_of_beginning(link, walk.released)
    else:
        fault = _fault_of_order(link, walk.last)
    if fault is not None:
        return fault
    if digest(link.seq, link.entry, link.prev_hash) != link.hash:
        return BrokenLink(seq=link.seq, reason="its content does not fit its hash")
    if any(claim is not None and claim != link.hash for claim in claims):
        reason = (
            "its hash is not the one that was signed: it or an entry between it and the checkpoint "
            "before has been replaced, and the chain made to fit"
        )
        return BrokenLink(seq=link.seq, reason=reason)
    return None


def _fault_of_beginning(link: Link, released: Head) -> BrokenLink | None:
    """Entries up to the released one may be gone, or some of them not yet."""
    if link.seq < 1:
        return BrokenLink(seq=link.seq, reason="entries are counted from 1")
    if link.seq <= released.seq:
        return None
    if link.seq > released.seq + 1:
        return _missing(released.seq + 1, link.seq - 1)
    return _fault_of_order(link, released)


def _fault_of_order(link: Link, last: Head) -> BrokenLink | None:
    if link.seq != last.seq + 1:
        return _missing(last.seq + 1, link.seq - 1)
    if link.prev_hash != last.hash:
        return BrokenLink(seq=link.seq, reason=f"it does not follow on entry {last.seq}")
    return None


def _fault_of_end(walk: _Walk, furthest: int) -> BrokenLink | None:
    # The newest entry is never let go.
    needed = max(furthest, walk.released.seq + 1 if walk.released.seq else 0)
    last = max(walk.last.seq, walk.released.seq)
    if needed <= last:
        return None
    fault = _missing(last + 1, needed)
    fault.reason += ": a checkpoint stands beyond the end of the log"
    return fault


def _missing(first: int, last: int) -> BrokenLink:
    if first == last:
        return BrokenLink(seq=first, reason="it is missing")
    return BrokenLink(seq=first, reason=f"the entries {first} to {last} are missing")
