"""A pooler must use session mode, not transaction mode."""

from typing import Literal

import pytest

from src.services.operations.pool_mode import is_pooled_per_transaction
from src.utils.database import Database
from tests.support.environment import Environment
from tests.support.pgbouncer import through_pgbouncer
from tests.support.server import running
from tests.support.waiting import until


@pytest.mark.parametrize("mode", ["SESSION", "TRANSACTION"])
async def test_pool_mode_is_detected(
    environment: Environment, mode: Literal["SESSION", "TRANSACTION"]
) -> None:
    database = Database(environment.settings(DATABASE_URL=through_pgbouncer(environment, mode)))
    assert await is_pooled_per_transaction(database) is (mode == "TRANSACTION")
    await database.close()


async def test_backend_works_with_a_session_pool(environment: Environment) -> None:
    async with running(
        environment.settings(DATABASE_URL=through_pgbouncer(environment, "SESSION"))
    ) as backend:
        user = await backend.add_user("alice@shield.test")
        headers = {"Authorization": f"Bearer {backend.token_of(user)}"}
        assert (await backend.http.get("/auth/me", headers=headers)).status_code == 200
        await until(environment.settled)
        assert (await backend.health())["status"] == "healthy"
