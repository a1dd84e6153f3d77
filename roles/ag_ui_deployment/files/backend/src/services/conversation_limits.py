"""How many bytes of JSON the agent takes and keeps: of one message and of a state."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import orjson

from src.config import Settings
from src.models.agent_input import RunInput
from src.services.faults import FieldFaultError


class InputTooLargeError(FieldFaultError):
    """A message or the state has more bytes than it may have."""


@dataclass(frozen=True, slots=True)
class ConversationLimits:
    message_bytes: int
    state_bytes: int

    @classmethod
    def of(cls, settings: Settings) -> Self:
        return cls(settings.AGENT_MESSAGE_MAX_BYTES, settings.AGENT_STATE_MAX_BYTES)

    def check_input(self, request: RunInput) -> None:
        """Raises InputTooLargeError."""
        _check_size(request.state, self.state_bytes, "state")
        for number, message in enumerate(request.conversation):
            _check_size(message, self.message_bytes, f"messages.{number}")


def _check_size(value: Mapping[str, Any] | Any, limit: int, field: str) -> None:
    size = len(orjson.dumps(value))
    if size > limit:
        raise InputTooLargeError(
            f"has {size} bytes of JSON and may have {limit}; shorten it, or send it in parts", field
        )
