"""The AG-UI events in the OpenAPI document."""

from typing import Annotated

from ag_ui import core
from pydantic import Field, RootModel

_SentEvent = (
    core.RunStartedEvent
    | core.RunFinishedEvent
    | core.RunErrorEvent
    | core.StepStartedEvent
    | core.StepFinishedEvent
    | core.TextMessageStartEvent
    | core.TextMessageContentEvent
    | core.TextMessageEndEvent
    | core.ReasoningStartEvent
    | core.ReasoningMessageStartEvent
    | core.ReasoningMessageContentEvent
    | core.ReasoningMessageEndEvent
    | core.ReasoningEndEvent
    | core.ToolCallStartEvent
    | core.ToolCallArgsEvent
    | core.ToolCallEndEvent
    | core.ToolCallResultEvent
    | core.ActivitySnapshotEvent
    | core.ActivityDeltaEvent
    | core.StateSnapshotEvent
    | core.MessagesSnapshotEvent
    | core.CustomEvent
    | core.RawEvent
)


class AgUiEvent(RootModel[Annotated[_SentEvent, Field(discriminator="type")]]):
    """What stands in `data` of one Server-Sent Event: those of AG-UI that the backend sends."""
