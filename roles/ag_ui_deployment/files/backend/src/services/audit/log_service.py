"""Pages, exports and verifications of the audit log. The latter two are recorded in it."""

import asyncio
import csv
import io
import time
from collections.abc import AsyncIterator, Mapping
from types import MappingProxyType
from typing import Any, Literal

import orjson

from src.models.audit import AuditEntry, AuditPage, ChainLink, Verification
from src.models.user import User
from src.repositories import audit as audit_rows
from src.repositories.audit import Filter
from src.services.audit.verifier import AuditVerifier
from src.services.audit_logger import Action, AuditEvent, AuditLogger, Outcome
from src.utils.database import Database
from src.utils.event_loop import cooperative_iter

ExportFormat = Literal["csv", "jsonl"]

_PAGE = 100
# Prefixes that make a spreadsheet treat a cell as a formula (CSV injection).
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class AuditLogService:
    def __init__(self, database: Database, verifier: AuditVerifier, audit: AuditLogger) -> None:
        self._database = database
        self._verifier = verifier
        self._audit = audit
        self._verifying = asyncio.Lock()
        self._verified: tuple[float, Verification] | None = None

    async def page(self, wanted: Filter, *, before: int | None, limit: int) -> AuditPage:
        """Read a page, newest first.

        Args:
            wanted: Which entries.
            before: Only entries with a smaller sequence number; None for the first page.
            limit: Maximum number of entries.
        """
        async with self._database.transaction() as session:
            links = await audit_rows.before(session, before, limit + 1, wanted)
        shown = links[:limit]
        more = len(links) > limit
        return AuditPage(
            items=[entry_of(link) for link in shown],
            next_cursor=str(shown[-1].seq) if more else None,
            next_before=shown[-1].seq if more else None,
        )

    async def export(
        self, wanted: Filter, form: ExportFormat, reader: User | None
    ) -> AsyncIterator[bytes]:
        """Export entries, oldest first, without those recorded meanwhile.

        Args:
            wanted: Which entries.
            form: CSV or JSON Lines.
            reader: Who exports; None for the operator.

        Returns:
            The export in chunks.
        """
        asked = {name: str(value) for name, value in wanted.given().items()}
        await self._record(reader, Action.AUDIT_EXPORT, details={"format": form, **asked})
        async with self._database.transaction() as session:
            end = await audit_rows.newest_seq(session)
        return self._export(wanted, form, end)

    async def verify(self, reader: User) -> Verification:
        """Verify the log. One runs at a time; requests made meanwhile share the next one."""
        asked_at = time.monotonic()
        async with self._verifying:
            if self._verified is None or self._verified[0] < asked_at:
                self._verified = (time.monotonic(), await self._verifier.verify())
            _, found = self._verified
        await self.record_verification(reader, found)
        return found

    async def record_verification(self, reader: User | None, found: Verification) -> None:
        """Record a verification and its result. `reader` is None for the operator."""
        details = {"last_seq": found.last_seq}
        if found.broken is not None:
            details["broken_seq"] = found.broken.seq
        outcome = Outcome.SUCCESS if found.intact else Outcome.FAILURE
        await self._record(reader, Action.AUDIT_VERIFY, outcome, details)

    async def _export(
        self, wanted: Filter, form: ExportFormat, end: int | None
    ) -> AsyncIterator[bytes]:
        if form == "csv":
            yield _csv(tuple(AuditEntry.model_fields))
        line_of = _csv_of if form == "csv" else _jsonl_of
        seq: int | None = None
        while end is not None and (seq is None or seq < end):
            async with self._database.transaction() as session:
                links = await audit_rows.after(session, seq, _PAGE, wanted)
            some = [link for link in links if link.seq <= end]
            if not some:
                return
            yield b"".join([line_of(link) async for link in cooperative_iter(some)])
            seq = some[-1].seq

    async def _record(
        self,
        reader: User | None,
        action: Action,
        outcome: Outcome = Outcome.SUCCESS,
        details: Mapping[str, object] = MappingProxyType({}),
    ) -> None:
        await self._audit.record(
            AuditEvent(
                action,
                outcome,
                actor_id=reader.id if reader else None,
                actor=reader.email if reader else "operator",
                target="audit",
                details=details,
            )
        )


def entry_of(link: ChainLink) -> AuditEntry:
    one = link.entry
    return AuditEntry(
        seq=link.seq,
        at=one.at,
        action=one.action,
        outcome=one.outcome,
        actor_id=one.actor_id,
        actor=one.actor,
        target=one.target,
        address=one.address,
        request_id=one.request_id,
        details=_details(one.details),
        prev_hash=link.prev_hash.hex(),
        hash=link.hash.hex(),
    )


def _details(text: str) -> dict[str, Any]:
    """Parse details. An entry written by an intruder may hold anything."""
    try:
        details = orjson.loads(text)
    except orjson.JSONDecodeError:
        details = None
    return details if isinstance(details, dict) else {"unreadable": text}


def _jsonl_of(link: ChainLink) -> bytes:
    return entry_of(link).model_dump_json().encode() + b"\n"


def _csv_of(link: ChainLink) -> bytes:
    values = entry_of(link).model_dump(mode="json") | {"details": link.entry.details}
    return _csv(tuple(map(_cell, values.values())))


def _cell(value: object) -> str:
    """The value as text, with a quote before what a spreadsheet would treat as a formula."""
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _csv(cells: tuple[str, ...]) -> bytes:
    out = io.StringIO()
    csv.writer(out).writerow(cells)
    return out.getvalue().encode()
