"""Limits the bytes of a message, a state, a conversation, and all conversations of a user."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import orjson

from src.config import Settings
from src.models.agent_input import RunInput
from src.services.agent.errors import InputTooLargeError, ThreadFullError, UserFullError


@dataclass(frozen=True, slots=True)
class StorageLimits:
    """The limits, in bytes."""

    message_bytes: int
    state_bytes: int
    thread_bytes: int
    user_bytes: int

    @classmethod
    def of(cls, settings: Settings) -> Self:
        return cls(
            message_bytes=settings.AGENT_MESSAGE_MAX_BYTES,
            state_bytes=settings.AGENT_STATE_MAX_BYTES,
            thread_bytes=settings.AGENT_THREAD_MAX_BYTES,
            user_bytes=settings.AGENT_USER_MAX_BYTES,
        )

    def check_input(self, request: RunInput) -> None:
        """Checks the messages and the state of a request.

        Raises:
            InputTooLargeError: One of them is too large.
        """
        _check_size(request.state, self.state_bytes, "state")
        for number, message in enumerate(request.conversation):
            _check_size(message, self.message_bytes, f"messages.{number}")

    def check_stored(self, *, of_thread: int, of_user: int) -> None:
        """Checks the stored size of a conversation and of a user.

        Args:
            of_thread: The size of the conversation, in bytes.
            of_user: The size of all conversations of the user, in bytes.

        Raises:
            ThreadFullError: The conversation is too large.
            UserFullError: The conversations of the user are too large.
        """
        if of_thread > self.thread_bytes:
            raise ThreadFullError
        if of_user > self.user_bytes:
            raise UserFullError


def _check_size(value: Mapping[str, Any] | Any, limit: int, field: str) -> None:
    size = len(orjson.dumps(value))
    if size > limit:
        raise InputTooLargeError(
            f"has {size} bytes of JSON and may have {limit}; shorten it, or send it in parts", field
        )
