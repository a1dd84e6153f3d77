"""Verify, export and trim the audit log."""

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable

from src.commands.answers import EXIT_BROKEN, fail, log_to_stderr, say
from src.config import Settings
from src.models.audit import Verification
from src.repositories.audit import Filter
from src.services.audit_chain import Head
from src.services.audit_keeper import AuditKeeper, ChainBrokenError
from src.services.audit_keys import AuditKeys
from src.services.audit_logger import AuditLogger
from src.services.audit_service import AuditService
from src.services.audit_verifier import AuditVerifier
from src.utils.database import Database


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    audit = commands.add_parser("audit", help="verify, export or trim the audit log")
    actions = audit.add_subparsers(required=True, metavar="COMMAND")
    verify = actions.add_parser("verify", help="name the first broken link; exit code 5 if any")
    verify.add_argument(
        "--noted",
        action="append",
        default=[],
        type=_place,
        metavar="SEQ:HASH",
        help="an entry's number and hash, from a line audit_checkpoint of the journal",
    )
    verify.set_defaults(run=_verify)
    export = actions.add_parser("export", help="write all entries to standard output")
    export.add_argument("--format", choices=["csv", "jsonl"], default="jsonl")
    export.set_defaults(run=_export)
    retain = actions.add_parser("retain", help="delete what is older than AUDIT_RETENTION_DAYS")
    retain.add_argument(
        "--even-if-broken",
        action="store_true",
        help="also if what is to be deleted does not verify; export it first",
    )
    retain.set_defaults(run=_retain)


def _place(text: str) -> Head:
    seq, _, hashed = text.partition(":")
    return Head(int(seq), bytes.fromhex(hashed))


def _verify(settings: Settings, options: argparse.Namespace) -> int:
    async def work(database: Database) -> int:
        verifier = AuditVerifier(database, AuditKeys(settings))
        service = AuditService(database, verifier, AuditLogger(database))
        return _tell(await service.verify(None, options.noted))

    return _with_database(settings, work)


def _tell(found: Verification) -> int:
    if found.broken is not None:
        return fail(
            EXIT_BROKEN, f"audit: broken at entry {found.broken.seq}: {found.broken.reason}"
        )
    if found.first_seq is None:
        say("audit: empty")
    else:
        say(
            f"audit: entries {found.first_seq} to {found.last_seq} are whole, "
            f"{found.checkpoints} checkpoints"
        )
    return 0


def _export(settings: Settings, options: argparse.Namespace) -> int:
    async def work(database: Database) -> int:
        verifier = AuditVerifier(database, AuditKeys(settings))
        service = AuditService(database, verifier, AuditLogger(database))
        async for piece in await service.export(Filter(), options.format, None):
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        return 0

    return _with_database(settings, work)


def _retain(settings: Settings, options: argparse.Namespace) -> int:
    async def work(database: Database) -> int:
        keeper = AuditKeeper(database, AuditKeys(settings), AuditLogger(database), settings)
        try:
            deleted = await keeper.retain(even_if_broken=options.even_if_broken)
        except ChainBrokenError as error:
            return fail(EXIT_BROKEN, f"audit: nothing is deleted, the log is broken at {error}")
        say(f"audit: {deleted} entries deleted")
        return 0

    return _with_database(settings, work)


def _with_database(settings: Settings, work: Callable[[Database], Awaitable[int]]) -> int:
    log_to_stderr()

    async def run() -> int:
        database = Database(settings, statement_timeout=None)
        try:
            return await work(database)
        finally:
            await database.close()

    return asyncio.run(run())
