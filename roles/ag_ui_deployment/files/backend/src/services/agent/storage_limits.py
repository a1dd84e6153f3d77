"""Limits the bytes of a message, a state, a conversation, and all conversations of a user."""

from typing import Any

import orjson

from src.config import Settings
from src.models.agent_input import RunInput
from src.services.agent.errors import InputTooLargeError, ThreadFullError, UserFullError


def check_input(settings: Settings, request: RunInput) -> None:
    """Checks the messages and the state of a request.

    Raises:
        InputTooLargeError: One of them is too large.
    """
    _check_size(request.state, settings.AGENT_STATE_MAX_BYTES, "state")
    for number, message in enumerate(request.conversation):
        _check_size(message, settings.AGENT_MESSAGE_MAX_BYTES, f"messages.{number}")


def check_stored(settings: Settings, *, of_thread: int, of_user: int) -> None:
    """Checks the stored size of a conversation and of a user.

    Args:
        settings: The settings with the limits.
        of_thread: The size of the conversation, in bytes.
        of_user: The size of all conversations of the user, in bytes.

    Raises:
        ThreadFullError: The conversation is too large.
        UserFullError: The conversations of the user are too large.
    """
    if of_thread > settings.AGENT_THREAD_MAX_BYTES:
        raise ThreadFullError
    if of_user > settings.AGENT_USER_MAX_BYTES:
        raise UserFullError


def _check_size(value: Any, limit: int, field: str) -> None:
    size = len(orjson.dumps(value))
    if size > limit:
        raise InputTooLargeError(
            f"has {size} bytes of JSON and may have {limit}; shorten it, or send it in parts", field
        )
