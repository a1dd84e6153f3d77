"""Verify, export and trim the audit log."""

import argparse
import asyncio
import os
import sys
from collections.abc import Awaitable, Callable

from src.commands.output import EXIT_BROKEN, EXIT_UNAVAILABLE, echo, fail, log_to_stderr
from src.config import Settings
from src.models.audit import Head, Verification
from src.repositories.audit import AuditFilter
from src.services.audit.actors import OPERATOR
from src.services.audit.chain import START
from src.services.audit.checkpoint_signer import CheckpointSigner
from src.services.audit.keys import AuditKeys
from src.services.audit.log_service import AuditLogService
from src.services.audit.retention import AuditRetention, ChainBrokenError
from src.services.audit.verifier import AuditVerifier
from src.services.audit_logger import AuditLogger
from src.utils.database import DATABASE_ERRORS, Database


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    audit = commands.add_parser("audit", help="verify, export or trim the audit log")
    actions = audit.add_subparsers(required=True, metavar="COMMAND")
    verify = actions.add_parser("verify", help="name the first broken link; exit code 5 if any")
    verify.add_argument(
        "--noted",
        action="append",
        default=[],
        type=_parse_head,
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


def _parse_head(text: str) -> Head:
    seq, _, hashed = text.partition(":")
    try:
        head = Head(int(seq), bytes.fromhex(hashed))
    except ValueError:
        head = START
    if head.seq < 1 or len(head.hash) != len(START.hash):
        raise argparse.ArgumentTypeError(
            f"{text[:100]!r} is no SEQ:HASH; write an entry's number and its hash, which has 64 "
            "hexadecimal digits"
        )
    return head


def _verify(settings: Settings, options: argparse.Namespace) -> int:
    async def action(database: Database) -> int:
        verifier = AuditVerifier(database, AuditKeys(settings.audit_keys))
        result = await verifier.verify(options.noted)
        # Print the result first: recording it fails if the database is read-only.
        code = _print_result(result)
        try:
            service = AuditLogService(database, verifier, AuditLogger(database))
            await service.record_verification(None, result)
        except DATABASE_ERRORS as error:
            return fail(code, f"audit: that it was verified could not be recorded: {error}")
        return code

    return _with_database(settings, action)


def _print_result(result: Verification) -> int:
    if result.broken is not None:
        return fail(
            EXIT_BROKEN, f"audit: broken at entry {result.broken.seq}: {result.broken.reason}"
        )
    if result.first_seq is None:
        echo("audit: empty")
        return 0
    signed = f"signed through {result.signed_through}" if result.signed_through else "not signed"
    echo(
        f"audit: entries {result.first_seq} to {result.last_seq} are whole, {signed}, "
        f"{result.checkpoints} checkpoints"
    )
    return 0


def _export(settings: Settings, options: argparse.Namespace) -> int:
    async def action(database: Database) -> int:
        verifier = AuditVerifier(database, AuditKeys(settings.audit_keys))
        service = AuditLogService(database, verifier, AuditLogger(database))
        async for chunk in await service.export(AuditFilter(), options.format, None):
            try:
                sys.stdout.buffer.write(chunk)
                sys.stdout.buffer.flush()
            except OSError as error:
                return _output_failed(error)
        return 0

    return _with_database(settings, action)


def _output_failed(error: OSError) -> int:
    # Python flushes stdout at exit, which would raise a second error.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):
        # The reader closed the pipe, as `head` does.
        return 0
    return fail(EXIT_UNAVAILABLE, f"audit: the export is not whole: {error}")


def _retain(settings: Settings, options: argparse.Namespace) -> int:
    async def action(database: Database) -> int:
        keys = AuditKeys(settings.audit_keys)
        retention = AuditRetention(
            database,
            CheckpointSigner(database, keys, settings),
            AuditVerifier(database, keys),
            AuditLogger(database),
            settings,
        )
        try:
            deleted = await retention.retain(OPERATOR.name, even_if_broken=options.even_if_broken)
        except ChainBrokenError as error:
            return fail(EXIT_BROKEN, f"audit: nothing is deleted, the log is broken at {error}")
        echo(f"audit: {deleted} entries deleted")
        return 0

    return _with_database(settings, action)


def _with_database(settings: Settings, action: Callable[[Database], Awaitable[int]]) -> int:
    log_to_stderr()

    async def run() -> int:
        database = Database(settings, statement_timeout=None)
        try:
            return await action(database)
        finally:
            await database.close()

    return asyncio.run(run())
