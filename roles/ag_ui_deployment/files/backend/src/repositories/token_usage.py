"""Queries on the token usage of models."""

from collections.abc import Mapping
from datetime import date
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import BigInteger, delete, func, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from src.models.token_usage import TokenUsageRow, UsageTotal
from src.models.user import UserRow


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


class TotalKey(NamedTuple):
    """What orders the totals: the number of tokens, the user and the model."""

    tokens: int
    owner: UUID
    model: str


async def totals(
    session: AsyncSession, *, since: date, until: date, below: TotalKey | None, limit: int
) -> list[UsageTotal]:
    """Sum the usage of some days by user and model, the greatest first.

    Args:
        session: The transaction.
        since: The first day.
        until: The last day.
        below: The last total of the previous page; None for the first page.
        limit: Maximum number of totals.
    """
    usage = (
        select(
            TokenUsageRow.owner_id,
            TokenUsageRow.model,
            func.sum(TokenUsageRow.input_tokens).cast(BigInteger).label("input"),
            func.sum(TokenUsageRow.output_tokens).cast(BigInteger).label("output"),
        )
        .where(TokenUsageRow.day.between(since, until))
        .group_by(TokenUsageRow.owner_id, TokenUsageRow.model)
        .subquery()
    )
    key = (usage.c.input + usage.c.output, usage.c.owner_id, usage.c.model)
    name = func.coalesce(UserRow.name, UserRow.email)
    query = (
        select(usage.c.owner_id, name, usage.c.model, usage.c.input, usage.c.output)
        .join(UserRow, UserRow.id == usage.c.owner_id)
        .order_by(*(part.desc() for part in key))
        .limit(limit)
    )
    if below is not None:
        query = query.where(tuple_(*key) < tuple_(*below))
    return [
        UsageTotal(
            user_id=user, user_name=name, model=model, input_tokens=read, output_tokens=written
        )
        for user, name, model, read, written in await session.execute(query)
    ]


async def delete_before(session: AsyncSession, day: date) -> None:
    await session.execute(delete(TokenUsageRow).where(TokenUsageRow.day < day))
