"""Readiness: whether this process should get traffic."""

import asyncio

from src.services.events.hub import EventHub
from src.services.operations.schema import is_schema_current
from src.utils.database import DATABASE_ERRORS, Database

_CHECK_TIMEOUT = 1.5


class ReadinessService:
    def __init__(self, database: Database, hub: EventHub) -> None:
        self._database = database
        self._hub = hub
        self._schema_is_current = False

    async def not_ready_reason(self) -> str | None:
        """Why this process should get no traffic; None if it should.

        Outages of dependencies are no reason, since all instances share them and the proxy would have
        no instance left.
        """
        if self._hub.draining:
            return "draining: this instance is being stopped"
        if not self._schema_is_current:
            try:
                async with asyncio.timeout(_CHECK_TIMEOUT):
                    self._schema_is_current = await is_schema_current(self._database)
            except DATABASE_ERRORS:
                return None
            if not self._schema_is_current:
                return "the database schema is not this release's: run `python -m src.cli migrate`"
        return None
