"""Pages, exports and verifications of the audit log. The latter two are recorded in it."""

import asyncio
import csv
import io
import time
from collections.abc import AsyncIterator, Mapping
from types import MappingProxyType
from typing import Literal

import orjson

from src.models.audit import AuditEntry, AuditPage, ChainLink, Verification
from src.models.user import User
from src.repositories import audit as audit_rows
from src.repositories.audit import AuditFilter
from src.services.audit.actors import OPERATOR, Actor
from src.services.audit.verifier import AuditVerifier
from src.services.audit_logger import Action, AuditLogger, Outcome
from src.utils.database import Database
from src.utils.event_loop import cooperative_iter
from src.utils.json_types import JsonObject

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

    async def page(self, criteria: AuditFilter, *, before: int | None, limit: int) -> AuditPage:
        """Read a page, newest first.

        Args:
            criteria: Which entries.
            before: Only entries with a smaller sequence number; None for the first page.
            limit: Maximum number of entries.
        """
        async with self._database.transaction() as session:
            links = await audit_rows.before(session, before, limit + 1, criteria)
        page = links[:limit]
        has_more = len(links) > limit
        return AuditPage(
            items=[entry_of(link) for link in page],
            next_cursor=str(page[-1].seq) if has_more else None,
            next_before=page[-1].seq if has_more else None,
        )

    async def export(
        self, criteria: AuditFilter, export_format: ExportFormat, user: User | None
    ) -> AsyncIterator[bytes]:
        """Export entries, oldest first, without those recorded meanwhile.

        Args:
            criteria: Which entries.
            export_format: CSV or JSON Lines.
            user: Who exports; None for the operator.

        Returns:
            The export in chunks.
        """
        filter_details = {name: str(value) for name, value in criteria.set_fields().items()}
        await self._record(
            user, Action.AUDIT_EXPORT, details={"format": export_format, **filter_details}
        )
        async with self._database.transaction() as session:
            end = await audit_rows.newest_seq(session)
        return self._export(criteria, export_format, end)

    async def verify(self, user: User) -> Verification:
        """Verify the log. One runs at a time; requests made meanwhile share the next one."""
        requested_at = time.monotonic()
        async with self._verifying:
            if self._verified is None or self._verified[0] < requested_at:
                self._verified = (time.monotonic(), await self._verifier.verify())
            _, verification = self._verified
        await self.record_verification(user, verification)
        return verification

    async def record_verification(self, user: User | None, verification: Verification) -> None:
        """Record a verification and its result. `user` is None for the operator."""
        details = {"last_seq": verification.last_seq}
        if verification.broken is not None:
            details["broken_seq"] = verification.broken.seq
        outcome = Outcome.SUCCESS if verification.intact else Outcome.FAILURE
        await self._record(user, Action.AUDIT_VERIFY, outcome, details)

    async def _export(
        self, criteria: AuditFilter, export_format: ExportFormat, end: int | None
    ) -> AsyncIterator[bytes]:
        if export_format == "csv":
            yield _csv_row(tuple(AuditEntry.model_fields))
        encode_entry = _encode_csv if export_format == "csv" else _encode_jsonl
        seq: int | None = None
        while end is not None and (seq is None or seq < end):
            async with self._database.transaction() as session:
                links = await audit_rows.after(session, seq, _PAGE, criteria)
            page = [link for link in links if link.seq <= end]
            if not page:
                return
            yield b"".join([encode_entry(link) async for link in cooperative_iter(page)])
            seq = page[-1].seq

    async def _record(
        self,
        user: User | None,
        action: Action,
        outcome: Outcome = Outcome.SUCCESS,
        details: Mapping[str, object] = MappingProxyType({}),
    ) -> None:
        actor = Actor.of(user) if user else OPERATOR
        await self._audit.record(actor.audit_event(action, "audit", details, outcome))


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


def _details(text: str) -> JsonObject:
    """Parse details. An entry written by an intruder may hold anything."""
    try:
        details = orjson.loads(text)
    except orjson.JSONDecodeError:
        details = None
    return details if isinstance(details, dict) else {"unreadable": text}


def _encode_jsonl(link: ChainLink) -> bytes:
    return entry_of(link).model_dump_json().encode() + b"\n"


def _encode_csv(link: ChainLink) -> bytes:
    values = entry_of(link).model_dump(mode="json") | {"details": link.entry.details}
    return _csv_row(tuple(map(_cell, values.values())))


def _cell(value: object) -> str:
    """The value as text, with a quote before what a spreadsheet would treat as a formula."""
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _csv_row(cells: tuple[str, ...]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer).writerow(cells)
    return buffer.getvalue().encode()
