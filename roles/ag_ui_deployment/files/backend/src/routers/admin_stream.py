"""The status of the event stream and its dead letters, for administrators."""

import re
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query

from src.models.event import StreamId
from src.models.page import PageCursor, PageLimit
from src.models.permissions import Permission
from src.models.stream import DeadLetter, DeadLetterPage, LetterState, StreamReport
from src.services.consumer.errors import (
    DeadLetterClosedError,
    DeadLetterIncompleteError,
    DeadLetterNotFoundError,
    StreamUnavailableError,
)
from src.utils.pagination import CursorRejectedError
from src.web.api_route import ApiRoute
from src.web.dependencies import CurrentUser, ServicesDep, requires
from src.web.problems import DatabaseUnavailableError, documented

router = APIRouter(
    route_class=ApiRoute,
    prefix="/stream",
    dependencies=[Depends(requires(Permission.MANAGE_STREAM))],
    responses=documented(DatabaseUnavailableError, StreamUnavailableError),
)

_STREAM_ID = r"^[0-9]{1,19}-[0-9]{1,19}$"
_ID_MAX = 39


async def _letter_id(
    letter_id: Annotated[str, Path(max_length=_ID_MAX, pattern=_STREAM_ID)],
) -> StreamId:
    try:
        return StreamId.parse(letter_id)
    except ValueError:
        raise DeadLetterNotFoundError from None


async def _page_cursor(
    before: Annotated[
        str | None,
        Query(max_length=_ID_MAX, pattern=_STREAM_ID, deprecated=True, description="As cursor"),
    ] = None,
    cursor: Annotated[PageCursor | None, Query()] = None,
) -> StreamId | None:
    if cursor and not re.fullmatch(_STREAM_ID, cursor, re.ASCII):
        raise CursorRejectedError
    ms, _, seq = (cursor or before or "").partition("-")
    # An id above all stored ones requests the first page, so it is clamped to 63 bits.
    return StreamId(min(int(ms), _MAX), min(int(seq), _MAX)) if ms else None


_MAX = 2**63 - 1
LetterId = Annotated[StreamId, Depends(_letter_id)]


@router.get("", summary="The stream, the group that stores it, and its consumers")
async def get_stream_report(services: ServicesDep) -> StreamReport:
    return await services.consumer.overview.report()


@router.get(
    "/dead-letters",
    summary="Entries that could not be stored, newest first",
    responses=documented(CursorRejectedError),
)
async def list_dead_letters(
    services: ServicesDep,
    before: Annotated[StreamId | None, Depends(_page_cursor)],
    state: LetterState = LetterState.OPEN,
    limit: Annotated[PageLimit, Query()] = 50,
) -> DeadLetterPage:
    return await services.consumer.dead_letters.page(state, before, limit)


@router.post(
    "/dead-letters/{letter_id}/replay",
    summary="Publish a dead letter again",
    responses=documented(DeadLetterNotFoundError, DeadLetterClosedError, DeadLetterIncompleteError),
)
async def replay_dead_letter(
    services: ServicesDep, user: CurrentUser, letter_id: LetterId
) -> DeadLetter:
    return await services.consumer.dead_letters.replay(user, letter_id)


@router.post(
    "/dead-letters/{letter_id}/discard",
    summary="Close a dead letter without publishing it",
    responses=documented(DeadLetterNotFoundError, DeadLetterClosedError),
)
async def discard_dead_letter(
    services: ServicesDep, user: CurrentUser, letter_id: LetterId
) -> DeadLetter:
    return await services.consumer.dead_letters.discard(user, letter_id)
