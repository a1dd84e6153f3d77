"""Describes the capabilities of the agent in AG-UI's schema."""

from collections.abc import Mapping, Sequence
from typing import Any

from ag_ui.core import AgentCapabilities, Tool
from ag_ui.core.capabilities import (
    ExecutionCapabilities,
    HumanInTheLoopCapabilities,
    IdentityCapabilities,
    MultiAgentCapabilities,
    MultimodalCapabilities,
    MultimodalInputCapabilities,
    ReasoningCapabilities,
    StateCapabilities,
    ToolsCapabilities,
    TransportCapabilities,
)

from src import __version__


def capabilities_of(tools: Sequence[Mapping[str, Any]], max_rounds: int) -> AgentCapabilities:
    """Describes the agent.

    Args:
        tools: The tools that the caller may use, in the format of a chat completion request.
        max_rounds: The maximum number of answers of the model per run.
    """
    return AgentCapabilities(
        identity=IdentityCapabilities(
            name="Shield",
            type="shield-ag-ui",
            description="Answers questions with Shield's knowledge, and crawls and ingests for it",
            version=__version__,
        ),
        transport=TransportCapabilities(
            streaming=True,
            websocket=False,
            http_binary=False,
            push_notifications=False,
            resumable=True,
        ),
        tools=ToolsCapabilities(
            supported=True,
            items=[Tool(**tool["function"]) for tool in tools],
            parallel_calls=False,
            client_provided=True,
        ),
        state=StateCapabilities(snapshots=True, deltas=False, memory=False, persistent_state=False),
        multi_agent=MultiAgentCapabilities(supported=False),
        reasoning=ReasoningCapabilities(supported=True, streaming=True, encrypted=False),
        multimodal=MultimodalCapabilities(
            input=MultimodalInputCapabilities(
                image=False, audio=False, video=False, pdf=False, file=False
            )
        ),
        execution=ExecutionCapabilities(
            code_execution=False, sandboxed=False, max_iterations=max_rounds
        ),
        human_in_the_loop=HumanInTheLoopCapabilities(supported=True, interrupts=False),
    )
