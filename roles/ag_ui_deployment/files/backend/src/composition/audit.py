"""Builds the audit log."""

from dataclasses import dataclass
from typing import Self

from src.config import Settings
from src.services.audit.checkpoint_signer import CheckpointSigner
from src.services.audit.keys import AuditKeys
from src.services.audit.log_service import AuditLogService
from src.services.audit.retention import AuditRetention
from src.services.audit.settings_changes import SettingsChanges
from src.services.audit.verifier import AuditVerifier
from src.services.audit_logger import AuditLogger
from src.utils.database import Database
from src.utils.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Audit:
    """`logger` records entries, `log` reads and verifies them."""

    logger: AuditLogger
    log: AuditLogService
    signer: CheckpointSigner
    retention: AuditRetention
    settings_changes: SettingsChanges

    @classmethod
    def build(cls, settings: Settings, database: Database, metrics: Metrics) -> Self:
        logger = AuditLogger(database, metrics)
        keys = AuditKeys(settings.audit_keys)
        signer = CheckpointSigner(database, keys, settings)
        verifier = AuditVerifier(database, keys)
        return cls(
            logger=logger,
            log=AuditLogService(database, verifier, logger),
            signer=signer,
            retention=AuditRetention(database, signer, verifier, logger, settings),
            settings_changes=SettingsChanges(database, keys, logger, settings),
        )
