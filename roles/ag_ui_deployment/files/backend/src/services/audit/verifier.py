"""Verifies the audit log: every link, every checkpoint, the beginning and the end.

Memory and the time of each query do not depend on the length of the log. Entries appended meanwhile are
ignored.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from src.models.audit import (
    BrokenLink,
    ChainLink,
    CheckpointPurpose,
    CheckpointRow,
    Head,
    Verification,
)
from src.repositories import audit as audit_rows
from src.services.audit.chain import START, digest
from src.services.audit.keys import AuditKeys
from src.utils.database import Database
from src.utils.event_loop import cooperative_iter

_PAGE = 200

# Expected hashes of entries by sequence number.
ExpectedHashes = Mapping[int, bytes]


class VerificationStoppedError(Exception):
    """It was asked to stop before it had seen everything."""


@dataclass(slots=True)
class _CheckpointSummary:
    """The result of reading all checkpoints.

    Attributes:
        count: Number of checkpoints.
        first: The first checkpoint.
        number: The number of the last checkpoint read.
        released: The last entry that a valid checkpoint allows retention to delete.
        signed_through: The newest entry that a valid checkpoint signs.
        broken: The fault of the oldest entry.
    """

    count: int = 0
    first: CheckpointRow | None = None
    number: int | None = None
    released: Head | None = None
    signed_through: int = 0
    broken: BrokenLink | None = None

    def fault(self, seq: int, reason: str) -> None:
        if self.broken is None or seq < self.broken.seq:
            self.broken = BrokenLink(seq=seq, reason=reason)


@dataclass(slots=True)
class _LinkSummary:
    """The result of checking the links.

    Attributes:
        released: The last entry that retention may have deleted.
        first: The first entry that is present.
        last: The last valid entry.
        broken: The first invalid entry.
    """

    released: Head
    first: int | None = None
    last: Head = field(default=START)
    broken: BrokenLink | None = None


class AuditVerifier:
    def __init__(self, database: Database, keys: AuditKeys) -> None:
        self._database = database
        self._keys = keys

    async def verify(
        self,
        known_heads: Sequence[Head] = (),
        *,
        through: int | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Verification:
        """Verify the log.

        Args:
            known_heads: Heads of the chain known from elsewhere, such as the journal.
            through: Only verify entries up to this sequence number.
            stopped: Called between pages. If it returns true, the verification is aborted.

        Raises:
            VerificationStoppedError: `stopped` returned true.
        """
        verification = _VerificationPass(
            self._database, self._keys, dict(known_heads), through, stopped
        )
        while True:
            oldest_before = await self._oldest()
            found = await verification.verify()
            # If retention deleted entries at the beginning meanwhile, a fault may be a false alarm.
            if found.intact or await self._oldest() == oldest_before:
                return found

    async def _oldest(self) -> int | None:
        async with self._database.transaction() as session:
            return await audit_rows.oldest_seq(session)


@dataclass(frozen=True, slots=True)
class _VerificationPass:
    """One pass over the log."""

    database: Database
    keys: AuditKeys
    known_hashes: ExpectedHashes
    through: int | None
    stopped: Callable[[], bool]

    async def verify(self) -> Verification:
        checkpoints = await self._read_checkpoints()
        links = await self._verify_links(checkpoints.released or START)
        faults = [links.broken, checkpoints.broken]
        if links.broken is None and self.through is None:
            faults.append(
                _find_missing_end(links, max((checkpoints.signed_through, *self.known_hashes)))
            )
        broken = [one for one in faults if one is not None and self._is_in_range(one.seq)]
        return Verification(
            intact=not broken,
            first_seq=links.first,
            last_seq=links.last.seq if links.first else None,
            signed_through=checkpoints.signed_through or None,
            checkpoints=checkpoints.count,
            broken=min(broken, key=lambda one: one.seq, default=None),
        )

    def _is_in_range(self, seq: int) -> bool:
        return self.through is None or seq <= self.through

    async def _read_checkpoints(self) -> _CheckpointSummary:
        found = _CheckpointSummary()
        while rows := await self._checkpoints_after(found.number):
            async for row in cooperative_iter(rows):
                self._add_checkpoint(found, row)
        first = found.first
        if first is not None and first.number > 1 and found.released is None:
            # Only retention deletes checkpoints.
            found.fault(first.seq, f"checkpoints are missing: the first is number {first.number}")
        return found

    def _add_checkpoint(self, found: _CheckpointSummary, row: CheckpointRow) -> None:
        found.count += 1
        found.first = found.first or row
        fault = self.keys.find_fault(row)
        if fault is None and found.number is not None and row.number != found.number + 1:
            fault = f"checkpoints are missing: number {found.number} is followed by {row.number}"
        found.number = row.number
        if fault is not None:
            found.fault(row.seq, fault)
            return
        found.signed_through = max(found.signed_through, row.seq)
        if row.purpose == CheckpointPurpose.RETENTION and row.seq > (found.released or START).seq:
            found.released = Head(row.seq, row.hash)

    async def _checkpoints_after(self, number: int | None) -> list[CheckpointRow]:
        self._check_stopped()
        async with self.database.transaction() as session:
            return await audit_rows.checkpoints_after(session, number, _PAGE)

    async def _verify_links(self, released: Head) -> _LinkSummary:
        links = _LinkSummary(released)
        async for page in self._pages():
            signed_hashes = await self._signed_hashes(page[0].seq, page[-1].seq)
            async for link in cooperative_iter(page):
                expected_hashes = (
                    *signed_hashes.get(link.seq, ()),
                    self.known_hashes.get(link.seq),
                )
                links.broken = _find_fault(link, links, expected_hashes)
                if links.broken is not None:
                    return links
                links.first = links.first or link.seq
                links.last = link.head
        return links

    async def _pages(self) -> AsyncIterator[list[ChainLink]]:
        """Read the entries in pages, up to the newest one at the beginning."""
        end, seq = await self._end(), None
        while end is not None and (seq is None or seq < end):
            self._check_stopped()
            async with self.database.transaction() as session:
                links = await audit_rows.after(session, seq, _PAGE)
            page = [link for link in links if link.seq <= end]
            if not page:
                return
            yield page
            seq = page[-1].seq

    async def _end(self) -> int | None:
        if self.through is not None:
            return self.through
        async with self.database.transaction() as session:
            return await audit_rows.newest_seq(session)

    async def _signed_hashes(self, first: int, last: int) -> dict[int, list[bytes]]:
        """The hashes that valid checkpoints sign, by sequence number."""
        async with self.database.transaction() as session:
            rows = await audit_rows.checkpoints_between(session, first, last)
        signed_hashes: dict[int, list[bytes]] = {}
        for row in rows:
            if self.keys.find_fault(row) is None:
                signed_hashes.setdefault(row.seq, []).append(row.hash)
        return signed_hashes

    def _check_stopped(self) -> None:
        if self.stopped():
            raise VerificationStoppedError


def _find_fault(
    link: ChainLink, links: _LinkSummary, signed_hashes: Iterable[bytes | None]
) -> BrokenLink | None:
    if links.first is None:
        fault = _fault_of_first(link, links.released)
    else:
        fault = _fault_of_next(link, links.last)
    if fault is not None:
        return fault
    if digest(link.seq, link.entry, link.prev_hash) != link.hash:
        return BrokenLink(seq=link.seq, reason="its content does not fit its hash")
    if any(expected is not None and expected != link.hash for expected in signed_hashes):
        reason = (
            "its hash is not the one that was signed: it or an entry between it and the checkpoint "
            "before has been replaced, and the chain made to fit"
        )
        return BrokenLink(seq=link.seq, reason=reason)
    return None


def _fault_of_first(link: ChainLink, released: Head) -> BrokenLink | None:
    """Check the first entry. Retention may have deleted any of the entries up to `released`."""
    if link.seq < 1:
        return BrokenLink(seq=link.seq, reason="entries are counted from 1")
    if link.seq <= released.seq:
        return None
    if link.seq > released.seq + 1:
        return _missing(released.seq + 1, link.seq - 1)
    return _fault_of_next(link, released)


def _fault_of_next(link: ChainLink, last: Head) -> BrokenLink | None:
    if link.seq != last.seq + 1:
        return _missing(last.seq + 1, link.seq - 1)
    if link.prev_hash != last.hash:
        return BrokenLink(seq=link.seq, reason=f"it does not follow on entry {last.seq}")
    return None


def _find_missing_end(links: _LinkSummary, signed_through: int) -> BrokenLink | None:
    # Retention never deletes the newest entry.
    required = max(signed_through, links.released.seq + 1 if links.released.seq else 0)
    last = max(links.last.seq, links.released.seq)
    if required <= last:
        return None
    fault = _missing(last + 1, required)
    fault.reason += ": a checkpoint stands beyond the end of the log"
    return fault


def _missing(first: int, last: int) -> BrokenLink:
    if first == last:
        return BrokenLink(seq=first, reason="it is missing")
    return BrokenLink(seq=first, reason=f"the entries {first} to {last} are missing")
