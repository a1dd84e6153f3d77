"""Reading the audit log: pages, exports and verifications, which are themselves recorded."""

import csv
import io
from collections.abc import AsyncIterator, Mapping, Sequence
from types import MappingProxyType
from typing import Literal

import orjson

from src.models.audit import AuditEntry, AuditPage, Verification
from src.models.user import User
from src.repositories import audit as audit_rows
from src.repositories.audit import Filter
from src.services.audit_chain import Head, Link
from src.services.audit_logger import Action, AuditEvent, AuditLogger, Outcome
from src.services.audit_verifier import AuditVerifier
from src.utils.database import Database

ExportFormat = Literal["csv", "jsonl"]

_PAGE = 500
# What a spreadsheet takes for the beginning of a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class AuditService:
    def __init__(self, database: Database, verifier: AuditVerifier, audit: AuditLogger) -> None:
        self._database = database
        self._verifier = verifier
        self._audit = audit

    async def page(self, wanted: Filter, *, before: int | None, limit: int) -> AuditPage:
        """Entries, the newest first, from one on."""
        async with self._database.transaction() as session:
            links = await audit_rows.before(session, before, limit + 1, wanted)
        shown = links[:limit]
        more = len(links) > limit
        return AuditPage(
            items=[entry_of(link) for link in shown],
            next_before=shown[-1].seq if more else None,
        )

    async def export(
        self, wanted: Filter, form: ExportFormat, reader: User | None
    ) -> AsyncIterator[bytes]:
        """All entries from the oldest on, in pieces; what is recorded meanwhile is left out."""
        asked = {name: str(value) for name, value in wanted.given().items()}
        await self._record(reader, Action.AUDIT_EXPORT, details={"format": form, **asked})
        async with self._database.transaction() as session:
            end = await audit_rows.head(session)
        return self._export(wanted, form, end)

    async def verify(self, reader: User | None, noted: Sequence[Head] = ()) -> Verification:
        found = await self._verifier.verify(noted)
        details = {"last_seq": found.last_seq}
        if found.broken is not None:
            details["broken_seq"] = found.broken.seq
        outcome = Outcome.SUCCESS if found.intact else Outcome.FAILURE
        await self._record(reader, Action.AUDIT_VERIFY, outcome, details)
        return found

    async def _export(
        self, wanted: Filter, form: ExportFormat, end: Head | None
    ) -> AsyncIterator[bytes]:
        if form == "csv":
            yield _csv([tuple(AuditEntry.model_fields)])
        encode = _csv_of if form == "csv" else _jsonl_of
        seq = 0
        while end is not None and seq < end.seq:
            async with self._database.transaction() as session:
                links = await audit_rows.after(session, seq, _PAGE, wanted)
            some = [link for link in links if link.seq <= end.seq]
            if not some:
                return
            yield encode(some)
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


def entry_of(link: Link) -> AuditEntry:
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
        details=orjson.loads(one.details),
        prev_hash=link.prev_hash.hex(),
        hash=link.hash.hex(),
    )


def _jsonl_of(links: Sequence[Link]) -> bytes:
    return b"".join(entry_of(link).model_dump_json().encode() + b"\n" for link in links)


def _csv_of(links: Sequence[Link]) -> bytes:
    return _csv([_cells(link) for link in links])


def _cells(link: Link) -> tuple[str, ...]:
    values = entry_of(link).model_dump(mode="json") | {"details": link.entry.details}
    return tuple(_cell(value) for value in values.values())


def _cell(value: object) -> str:
    """The value as text, with a quote before what a spreadsheet would compute."""
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _csv(rows: Sequence[Sequence[str]]) -> bytes:
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue().encode()
