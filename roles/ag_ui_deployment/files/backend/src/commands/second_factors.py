"""Re-encrypt the stored secrets of second factors."""

import argparse
import asyncio

from src.commands.output import EXIT_BAD_INPUT, echo, fail
from src.config import Settings
from src.models.second_factor import SecondFactorRow
from src.repositories import second_factors as factor_rows
from src.services.auth.errors import DecryptionError
from src.services.auth.secret_box import SecretBox
from src.utils.database import Database

# Few, so that a login waits for the lock of its row only briefly.
_BATCH = 100


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    factors = commands.add_parser("second-factors", help="manage second factors").add_subparsers(
        required=True, metavar="COMMAND"
    )
    reseal = factors.add_parser(
        "reseal",
        help="encrypt all secrets with MFA_KEY, so that earlier keys can be dropped; after an "
        "interruption, run it again",
    )
    reseal.set_defaults(run=_reseal)


def _reseal(settings: Settings, _options: argparse.Namespace) -> int:
    async def run() -> tuple[int, int]:
        database = Database(settings)
        try:
            return await _reseal_all(database, SecretBox(settings.mfa_keys))
        finally:
            await database.close()

    total, unreadable = asyncio.run(run())
    echo(f"sealed {total - unreadable}")
    if unreadable:
        return fail(EXIT_BAD_INPUT, f"{unreadable} cannot be read: add their MFA_PREVIOUS_KEYS")
    return 0


async def _reseal_all(database: Database, secret_box: SecretBox) -> tuple[int, int]:
    """Re-encrypt in batches, one transaction each.

    Returns:
        How many secrets there are, and how many no key decrypts.
    """
    total = unreadable = 0
    last = None
    while True:
        async with database.transaction() as session:
            rows = await factor_rows.after(session, last, _BATCH, lock=True)
            outdated = [row for row in rows if not secret_box.is_current(row.sealed_secret)]
            unreadable += sum(not _reencrypt(secret_box, row) for row in outdated)
        total += len(rows)
        if len(rows) < _BATCH:
            return total, unreadable
        last = rows[-1].user_id


def _reencrypt(secret_box: SecretBox, row: SecondFactorRow) -> bool:
    """Re-encrypt a secret with the current key; False if no key decrypts it."""
    try:
        secret = secret_box.decrypt(row.user_id, row.sealed_secret)
    except DecryptionError:
        return False
    row.sealed_secret = secret_box.encrypt(row.user_id, secret)
    return True
