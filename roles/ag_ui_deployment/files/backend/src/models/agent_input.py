"""The request body to run the agent: AG-UI's RunAgentInput with limits."""

import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Annotated, Any, Self

import orjson
from ag_ui.core import Context, Message, ResumeEntry, RunAgentInput, Tool, UserMessage
from ag_ui.core.types import ToolMessage
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from src.models.protocol import ProtocolVersion, negotiated
from src.models.workspace import DEFAULT_WORKSPACE
from src.utils.json_types import JsonObject

# Ids are used in URLs.
_ID = r"^[A-Za-z0-9_~@:-][A-Za-z0-9_.~@:-]*$"
# No control characters, for PostgreSQL (NUL) and the log.
_PLAIN = r"^[^\x00-\x1f\x7f]+$"
# Function names that model providers accept.
_TOOL_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)

_MAX_LENGTH = 200
MESSAGES_MAX = 2000
# Options in `forwardedProps`; the first value is the default.
_CHOICES = {"ifRunning": ("reject", "cancel"), "onDisconnect": ("continue", "cancel")}
_LIST_FIELDS = ("content", "toolCalls", "tool_calls")
# Maximum of content parts and tool calls, in one message and in all together.
_MAX_ITEMS = 1000
_MAX_ITEMS_TOTAL = 2 * MESSAGES_MAX
# Input is embedded in events and in requests to the model. Reserve nesting levels for these, since
# orjson limits the depth.
_RESERVED_LEVELS = 8

AgentId = Annotated[str, StringConstraints(min_length=1, max_length=_MAX_LENGTH, pattern=_ID)]
_Plain = Annotated[str, StringConstraints(min_length=1, max_length=_MAX_LENGTH, pattern=_PLAIN)]


def _is_plain(value: object) -> bool:
    return (
        isinstance(value, str)
        and len(value) <= _MAX_LENGTH
        and re.fullmatch(_PLAIN, value) is not None
    )


def _encodable(value: Any) -> Any:
    """Reject values that orjson cannot encode: lone surrogates, deep nesting, too large integers."""
    nested = value
    for _ in range(_RESERVED_LEVELS):
        nested = [nested]
    try:
        orjson.dumps(nested)
    except TypeError as error:
        raise ValueError(f"cannot be passed on: {error}") from None
    return value


def _bound_lists(messages: Any) -> Any:
    """Limit content parts and tool calls before validation, which reports an error for each item."""
    total = 0
    limited = messages[:MESSAGES_MAX] if isinstance(messages, list) else []
    for number, message in enumerate(limited):
        if not isinstance(message, dict):
            continue
        lists = (message.get(name) for name in _LIST_FIELDS)
        size = sum(len(value) for value in lists if isinstance(value, list))
        total += size
        if size > _MAX_ITEMS:
            raise ValueError(f"message {number}: it has more than {_MAX_ITEMS} parts and calls")
        if total > _MAX_ITEMS_TOTAL:
            raise ValueError(f"they have more than {_MAX_ITEMS_TOTAL} parts and calls")
    return messages


def _drop_unknown_fields(value: Any) -> None:
    """Remove fields that AG-UI does not define. Clients may use `metadata` for their own."""
    if isinstance(value, BaseModel):
        if value.model_extra:
            value.model_extra.clear()
        _drop_unknown_fields(list(value.__dict__.values()))
    elif isinstance(value, list):
        for item in value:
            _drop_unknown_fields(item)


def _check_messages(messages: list[Message]) -> list[Message]:
    _drop_unknown_fields(messages)
    for number, message in enumerate(messages):
        try:
            _check_message(message)
        except ValueError as error:
            raise ValueError(f"message {number}: {error}") from None
    return messages


def _deduplicated(messages: list[Message]) -> list[Message]:
    """Replace messages with the same id by the last of them, at the position of the first.

    Duplicates are accepted because a client that has one sends it with every further request.
    """
    return list({message.id: message for message in messages}.values())


def _check_message(message: Message) -> None:
    if not _is_plain(message.id):
        raise ValueError("its id has no or too many characters, or control characters")
    if isinstance(message, UserMessage | ToolMessage) and not isinstance(message.content, str):
        kinds = {part.type for part in message.content} - {"text"}
        if kinds:
            raise ValueError(f"this agent reads text only, not {', '.join(sorted(kinds))}")
    _encodable(message.model_dump(by_alias=True))


def _check_tools(tools: list[Tool]) -> list[Tool]:
    for tool in tools:
        if not _TOOL_NAME.fullmatch(tool.name):
            raise ValueError(
                f"{tool.name[:64]!r} is no name for a tool: use up to 64 of A-Z a-z 0-9 _ -"
            )
        if not isinstance(tool.parameters, dict | None):
            raise ValueError(  # noqa: TRY004 - Pydantic requires ValueError
                f"the parameters of {tool.name} are no JSON Schema of an object"
            )
        _encodable(tool.model_dump(by_alias=True))
    _reject_repeated_names(tool.name for tool in tools)
    return tools


def _check_context(context: list[Context]) -> list[Context]:
    _encodable([item.model_dump(by_alias=True) for item in context])
    return context


def _reject_repeated_names(names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"the name {name!r} stands there twice")
        seen.add(name)


def _check_props(props: Any) -> Any:
    if props is None:
        return None
    if not isinstance(props, dict):
        raise ValueError("is no object")  # noqa: TRY004 - Pydantic requires ValueError
    workspace = props.get("workspace")
    if workspace is not None and not _is_plain(workspace):
        raise ValueError("workspace is no name of a workspace")
    for name, choices in _CHOICES.items():
        if props.get(name) not in (None, *choices):
            raise ValueError(f"{name} is none of {', '.join(choices)}")
    return _encodable(props)


def _check_version(declared: str | None) -> str | None:
    negotiated(declared)
    return declared


def _reject_resume(resume: Any) -> Any:
    if resume:
        raise ValueError("this agent asks by tool calls, never by interrupts; leave it out")
    return resume


class RunInput(RunAgentInput):
    """One request to run the agent. `messages` are the conversation as the client holds it.

    UIs send none when they mount.
    """

    model_config = ConfigDict(extra="ignore")

    thread_id: AgentId
    run_id: AgentId
    protocol_version: Annotated[str | None, AfterValidator(_check_version)] = None
    parent_run_id: _Plain | None = None
    state: Annotated[Any, AfterValidator(_encodable)] = None
    messages: Annotated[
        list[Message],
        Field(max_length=MESSAGES_MAX),
        BeforeValidator(_bound_lists),
        AfterValidator(_check_messages),
        AfterValidator(_deduplicated),
    ]
    tools: Annotated[list[Tool], Field(max_length=128), AfterValidator(_check_tools)] | None = None
    context: (
        Annotated[list[Context], Field(max_length=100), AfterValidator(_check_context)] | None
    ) = None
    forwarded_props: Annotated[Any, AfterValidator(_check_props)] = None
    resume: Annotated[list[ResumeEntry] | None, BeforeValidator(_reject_resume)] = None

    @model_validator(mode="after")
    def _write_conversation(self) -> Self:
        """Compute `conversation` during validation, which runs in a thread for large bodies.

        It takes as long as the validation itself.
        """
        _ = self.conversation
        return self

    @cached_property
    def conversation(self) -> Sequence[JsonObject]:
        """The messages as AG-UI's JSON."""
        return [message.model_dump(by_alias=True) for message in self.messages]

    @property
    def version(self) -> ProtocolVersion:
        """The version of the protocol that the client speaks."""
        return negotiated(self.protocol_version)

    @property
    def cancels_running(self) -> bool:
        """Whether this run cancels a running one of the conversation.

        A run without messages never does, because UIs start such a run when they mount.
        """
        return bool(self.messages) and self._chosen("ifRunning") == "cancel"

    @property
    def ends_with_client(self) -> bool:
        """Whether the run is cancelled when the client that started it disconnects."""
        return self._chosen("onDisconnect") == "cancel"

    def _chosen(self, name: str) -> str | None:
        chosen: str | None = (self.forwarded_props or {}).get(name)
        return chosen

    @property
    def workspace(self) -> str:
        """The workspace of the run: `forwardedProps.workspace`, or the default one."""
        return self._chosen("workspace") or DEFAULT_WORKSPACE
