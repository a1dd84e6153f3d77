"""Finds keys that stored data or current tokens need and that the settings do not have."""

from collections.abc import AsyncIterator

from src.config import Settings
from src.models.second_factor import SecondFactorRow
from src.repositories import applied_settings as setting_rows
from src.repositories import audit as audit_rows
from src.repositories import second_factors as factor_rows
from src.services.audit.keys import AuditKeys
from src.services.audit.settings_changes import setting_content
from src.services.auth.errors import DecryptionError
from src.services.auth.secret_box import SecretBox
from src.utils.database import Database

_PAGE = 500
_JWT = (
    "JWT_SECRET has changed, and the key that signs tokens now is not in JWT_PREVIOUS_SECRETS: "
    "its tokens would be rejected. Add it there (ag_ui_jwt_previous_secrets)"
)
_AUDIT = (
    "AUDIT_KEY has changed, and the key that signed the newest checkpoint of the audit log is not in "
    "AUDIT_PREVIOUS_KEYS: the log could not be verified. Add it there (ag_ui_audit_previous_keys)"
)
_MFA = (
    "MFA_KEY: {} of {} stored second factors can be decrypted neither with it nor with "
    "MFA_PREVIOUS_KEYS: their accounts could not log in with a code. Add the former key there "
    "(ag_ui_mfa_previous_keys), or remove what nobody can decrypt any more: users mfa-reset EMAIL"
)


async def missing_keys(database: Database, settings: Settings) -> list[str]:
    """Describe the missing keys, each with the remedy.

    Raises:
        DATABASE_ERRORS: PostgreSQL is unavailable, or has no tables yet.
    """
    problems = []
    if await _lacks_signing_key(database, settings):
        problems.append(_JWT)
    if await _lacks_audit_key(database, settings):
        problems.append(_AUDIT)
    total, unreadable = await _count_second_factors(database, SecretBox(settings.mfa_keys))
    if unreadable:
        problems.append(_MFA.format(unreadable, total))
    return problems


async def _lacks_signing_key(database: Database, settings: Settings) -> bool:
    """Compare the keys with the digest of the last applied one, if its key is known."""
    async with database.transaction() as session:
        row = (await setting_rows.by_name(session)).get("JWT_SECRET")
    keys = AuditKeys(settings.audit_keys)
    if row is None or not keys.has_key(row.key_id):
        return False
    return not any(
        keys.verify_digest(setting_content("JWT_SECRET", key), row.key_id, row.digest)
        for key in settings.signing_keys
    )


async def _lacks_audit_key(database: Database, settings: Settings) -> bool:
    """Only the newest checkpoint counts, so that a key that was lost long ago is no obstacle."""
    async with database.transaction() as session:
        newest = await audit_rows.checkpoints_before(session, None, 1)
    return bool(newest) and not AuditKeys(settings.audit_keys).has_key(newest[0].key_id)


async def _count_second_factors(database: Database, secret_box: SecretBox) -> tuple[int, int]:
    """Count the stored second factors, and those that no key decrypts."""
    total = unreadable = 0
    async for row in _second_factors(database):
        total += 1
        try:
            secret_box.decrypt(row.user_id, row.sealed_secret)
        except DecryptionError:
            unreadable += 1
    return total, unreadable


async def _second_factors(database: Database) -> AsyncIterator[SecondFactorRow]:
    last = None
    while True:
        async with database.transaction() as session:
            rows = await factor_rows.after(session, last, _PAGE)
        for row in rows:
            yield row
        if len(rows) < _PAGE:
            return
        last = rows[-1].user_id
