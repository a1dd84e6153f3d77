"""Records changes of the settings in the audit log when an instance starts."""

from collections.abc import Mapping

import orjson
import structlog
from pydantic import SecretStr

from src.config import Settings
from src.models.audit import AppliedSettingRow
from src.repositories import applied_settings as setting_rows
from src.services.audit.actors import OPERATOR
from src.services.audit.keys import AuditKeys
from src.services.audit_logger import Action, AuditLogger
from src.utils.background_task import BackgroundTask
from src.utils.database import DATABASE_ERRORS, Database
from src.utils.redis import Backoff

logger = structlog.get_logger(__name__)

# Settings that differ between instances.
_PER_INSTANCE = frozenset({"HOST", "PORT", "REDIS_CONSUMER_NAME", "TRUSTED_PROXIES"})


class SettingsChanges(BackgroundTask):
    """Compares the settings with the last applied ones of all instances.

    It does so once, as soon as PostgreSQL answers. It records the names of the changed settings and
    stores keyed digests, which reveal nothing about the values without the key of the audit log.
    """

    def __init__(
        self, database: Database, keys: AuditKeys, audit: AuditLogger, settings: Settings
    ) -> None:
        super().__init__("settings-changes")
        self._database = database
        self._keys = keys
        self._audit = audit
        self._contents = {
            name: setting_content(name, getattr(settings, name))
            for name in sorted(Settings.model_fields)
            if name not in _PER_INSTANCE
        }
        self._explicit = frozenset(settings.model_fields_set)

    async def compare(self) -> None:
        """Record the changed settings and store their new digests."""
        async with self._database.transaction() as session:
            await setting_rows.lock(session)
            previous = await setting_rows.by_name(session)
            # Before the commit: a change may be recorded twice, but is never lost.
            await self._record(previous)
            for name, content in self._contents.items():
                row = previous.get(name) or AppliedSettingRow(name=name)
                row.key_id, row.digest = self._keys.digest(content)
                session.add(row)

    async def _record(self, previous: Mapping[str, AppliedSettingRow]) -> None:
        if not previous:
            return
        changed = [name for name in self._contents if self._is_changed(name, previous.get(name))]
        # Digests made with a key that was replaced and is not in AUDIT_PREVIOUS_KEYS.
        unverifiable = sum(not self._keys.has_key(row.key_id) for row in previous.values())
        if changed or unverifiable:
            details = {"changed": changed} | (
                {"not_compared": unverifiable} if unverifiable else {}
            )
            await self._audit.record(
                OPERATOR.audit_event(Action.SETTINGS_CHANGE, "settings", details)
            )

    def _is_changed(self, name: str, previous: AppliedSettingRow | None) -> bool:
        if previous is None:
            # The previous release did not have this setting.
            return name in self._explicit
        return self._keys.has_key(previous.key_id) and not self._keys.verify_digest(
            self._contents[name], previous.key_id, previous.digest
        )

    async def _run(self) -> None:
        backoff = Backoff()
        while not self._stop.is_set():
            try:
                await self.compare()
            except DATABASE_ERRORS as error:
                if self.waits_for("PostgreSQL", error):
                    logger.warning("settings_changes_wait_for_database", error=str(error))
                await backoff.wait(self._stop)
            else:
                self.status = "compared"
                await self._stop.wait()


def setting_content(name: str, value: object) -> bytes:
    """What the digest of a setting is computed of."""
    plain = value.get_secret_value() if isinstance(value, SecretStr) else value
    return orjson.dumps([name, plain])
