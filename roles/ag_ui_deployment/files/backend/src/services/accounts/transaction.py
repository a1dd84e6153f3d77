"""The transaction of administrative changes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncSession

from src.repositories import accounts as account_rows
from src.services.audit.actors import Actor
from src.services.rbac_service import NotPermittedError
from src.utils.database import Database


@asynccontextmanager
async def administering(database: Database, actor: Actor) -> AsyncIterator[AsyncSession]:
    """A transaction that excludes other administrative changes.

    The actor's rights are checked again, so that two administrators who revoke each other's role at the
    same time do not both succeed.

    Args:
        database: The database.
        actor: The administrator, or the operator, who has no account.

    Raises:
        NotPermittedError: The actor is no longer an active administrator.
    """
    async with database.transaction() as session:
        await account_rows.lock(session)
        if actor.id is not None and not await account_rows.is_active_admin(session, actor.id):
            raise NotPermittedError
        yield session
