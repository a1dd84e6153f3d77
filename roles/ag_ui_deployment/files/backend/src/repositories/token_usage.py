"""Queries on the token usage of models."""

from collections.abc import Mapping
from datetime import date
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from src.models.token_usage import TokenUsageRow


class UsageKey(NamedTuple):
    owner: UUID
    day: date
    model: str


class TokenCounts(NamedTuple):
    input: int
    output: int


async def add(session: AsyncSession, usage: Mapping[UsageKey, TokenCounts]) -> None:
    """Add token counts to the stored ones."""
    # Sorted, so that concurrent statements on the same rows cannot deadlock.
    rows = [
        {
            "owner_id": key.owner,
            "day": key.day,
            "model": key.model,
            "input_tokens": tokens.input,
            "output_tokens": tokens.output,
        }
        for key, tokens in sorted(usage.items())
    ]
    new = insert(TokenUsageRow).values(rows)
    added = new.on_conflict_do_update(
        index_elements=[TokenUsageRow.owner_id, TokenUsageRow.day, TokenUsageRow.model],
        set_={
            "input_tokens": TokenUsageRow.input_tokens + new.excluded.input_tokens,
            "output_tokens": TokenUsageRow.output_tokens + new.excluded.output_tokens,
        },
    )
    await session.execute(added)


async def of_day(session: AsyncSession, owner_id: UUID, day: date) -> int:
    """Sum a user's input and output tokens of all models on a day (UTC)."""
    both = func.sum(TokenUsageRow.input_tokens + TokenUsageRow.output_tokens)
    query = select(func.coalesce(both, 0)).where(
        TokenUsageRow.owner_id == owner_id, TokenUsageRow.day == day
    )
    return int(await session.scalar(query) or 0)


async def delete_before(session: AsyncSession, day: date) -> None:
    await session.execute(delete(TokenUsageRow).where(TokenUsageRow.day < day))
