"""Read the position of the consumer group for a backup, and set it after a restore."""

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable

from pydantic import ValidationError

from src.commands.output import EXIT_BAD_INPUT, EXIT_UNAVAILABLE, echo, fail, log_to_stderr
from src.config import Settings
from src.services.consumer.event_store import EventStore
from src.services.consumer.group_position import GroupPositionService, SavedPosition
from src.utils.database import Database
from src.utils.redis import REDIS_ERRORS, command_client

_NO_POSITION = "null"


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    stream = commands.add_parser("stream", help="the consumer group in a backup").add_subparsers(
        required=True, metavar="COMMAND"
    )
    position = stream.add_parser("position", help="print the position of the group as JSON")
    position.set_defaults(run=_position)
    resume = stream.add_parser(
        "resume",
        help="set the group to the position on standard input, and record the entries that are lost",
    )
    resume.set_defaults(run=_resume)


def _position(settings: Settings, _options: argparse.Namespace) -> int:
    async def action(service: GroupPositionService) -> str:
        saved = await service.read()
        return saved.model_dump_json() if saved is not None else _NO_POSITION

    return _with_service(settings, action)


def _resume(settings: Settings, _options: argparse.Namespace) -> int:
    text = sys.stdin.read().strip()
    try:
        saved = None if text == _NO_POSITION else SavedPosition.model_validate_json(text)
    except ValidationError as error:
        return fail(EXIT_BAD_INPUT, f"standard input is no position of a backup: {error}")

    async def action(service: GroupPositionService) -> str:
        loss = await service.resume(saved)
        if loss is None:
            return "stream: the group continues at the position of the backup, nothing is lost"
        return (
            f"stream: at least {loss.entries} entries between {loss.after} and {loss.before} are "
            f"lost ({loss.how}); clients that missed them are told a gap"
        )

    return _with_service(settings, action)


def _with_service(
    settings: Settings, action: Callable[[GroupPositionService], Awaitable[str]]
) -> int:
    log_to_stderr()

    async def run() -> str:
        database, redis = Database(settings), command_client(settings)
        try:
            return await action(
                GroupPositionService(
                    redis,
                    EventStore(database),
                    settings.REDIS_STREAM_NAME,
                    settings.REDIS_CONSUMER_GROUP,
                )
            )
        finally:
            await redis.aclose()
            await database.close()

    try:
        echo(asyncio.run(run()))
    except REDIS_ERRORS as error:
        return fail(EXIT_UNAVAILABLE, f"Redis (REDIS_URL) cannot be used: {error}")
    return 0
