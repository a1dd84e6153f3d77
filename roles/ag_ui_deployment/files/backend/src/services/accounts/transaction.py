"""The transactions in which accounts and workspaces are administered."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncSession

from src.repositories import accounts as account_rows
from src.services.audit.actors import Actor
from src.services.rbac_service import NotPermittedError
from src.utils.database import Database


@asynccontextmanager
async def administering(database: Database, actor: Actor) -> AsyncIterator[AsyncSession]:
    """Nobody else administers meanwhile.

    Raises NotPermittedError if the actor's rights have ended since the request began: two
    administrators who take each other's role at once shall not both succeed.
    """
    async with database.transaction() as session:
        await account_rows.lock(session)
        if actor.id is not None and not await account_rows.is_active_admin(session, actor.id):
            raise NotPermittedError
        yield session
