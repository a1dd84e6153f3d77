"""Keys that stored data or current tokens need are not dropped unnoticed."""

from uuid import UUID, uuid4

import pytest

from src.config import Settings
from src.models.second_factor import SecondFactorRow
from src.services.audit.actors import OPERATOR
from src.services.audit.checkpoint_signer import CheckpointSigner
from src.services.audit.keys import AuditKeys
from src.services.audit.settings_changes import SettingsChanges
from src.services.audit_logger import Action, AuditLogger
from src.services.auth.secret_box import SecretBox
from src.services.operations.needed_keys import missing_keys
from src.utils.database import Database
from tests.support.cli import cli_environment, run
from tests.support.environment import Environment
from tests.support.server import PASSWORD

KEYS = {"JWT_SECRET": "j" * 40, "MFA_KEY": "m" * 40, "AUDIT_KEY": "a" * 40}


async def found(settings: Settings) -> list[str]:
    database = Database(settings)
    try:
        return await missing_keys(database, settings)
    finally:
        await database.close()


@pytest.fixture
async def used(environment: Environment) -> Settings:
    """Settings whose keys have signed and encrypted something."""
    settings = environment.settings(**KEYS, AUDIT_CHECKPOINT_ENTRIES=1)
    add = ("users", "add", "alice@shield.test", "--role", "viewer")
    await run(cli_environment(environment, **KEYS), *add, stdin=f"{PASSWORD}\n")
    [(user_id,)] = await environment.query("SELECT id FROM users")
    database = Database(settings)
    keys = AuditKeys(settings.audit_keys)
    try:
        audit = AuditLogger(database)
        await SettingsChanges(database, keys, audit, settings).compare()
        await audit.record(OPERATOR.audit_event(Action.AUDIT_EXPORT, "audit"))
        await CheckpointSigner(database, keys, settings).checkpoint_if_due()
        await add_second_factor(database, settings, UUID(str(user_id)))
    finally:
        await database.close()
    return settings


async def add_second_factor(database: Database, settings: Settings, owner: UUID) -> None:
    sealed = SecretBox(settings.mfa_keys).encrypt(owner, "GEZDGNBVGY3TQOJQ")
    async with database.transaction() as session:
        session.add(SecondFactorRow(user_id=owner, sealed_secret=sealed))


@pytest.mark.usefixtures("used")
async def test_unchanged_and_rotated_keys_are_found(environment: Environment) -> None:
    assert await found(environment.settings(**KEYS)) == []
    rotated = {
        **dict.fromkeys(KEYS, "n" * 40),
        "JWT_PREVIOUS_SECRETS": KEYS["JWT_SECRET"],
        "MFA_PREVIOUS_KEYS": KEYS["MFA_KEY"],
        "AUDIT_PREVIOUS_KEYS": KEYS["AUDIT_KEY"],
    }
    assert await found(environment.settings(**rotated)) == []


@pytest.mark.usefixtures("used")
@pytest.mark.parametrize("name", KEYS)
async def test_dropped_key_is_named_with_its_remedy(environment: Environment, name: str) -> None:
    [problem] = await found(environment.settings(**(KEYS | {name: "n" * 40})))
    assert problem.startswith(name)
    assert "PREVIOUS" in problem
    assert "n" * 40 not in problem


@pytest.mark.usefixtures("used")
async def test_settings_check_refuses_a_dropped_key_unless_that_is_confirmed(
    environment: Environment,
) -> None:
    env = cli_environment(environment, **(KEYS | {"MFA_KEY": "n" * 40}))
    code, out, error = await run(env, "settings", "check")
    assert (code, out) == (2, "")
    assert "MFA_KEY: 1 of 1 stored second factors" in error
    assert "ag_ui_allow_key_loss" in error
    allowed = await run(env, "settings", "check", "--allow-key-loss")
    assert allowed == (0, "settings: all right\n", "")


async def test_database_without_tables_or_data_needs_no_key(environment: Environment) -> None:
    assert await found(environment.settings(JWT_SECRET=str(uuid4()))) == []
    await environment.query("DROP SCHEMA public CASCADE")
    await environment.query("CREATE SCHEMA public")
    env = cli_environment(environment)
    assert await run(env, "settings", "check") == (0, "settings: all right\n", "")
