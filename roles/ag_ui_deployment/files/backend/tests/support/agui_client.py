"""A small AG-UI client that shows what a user sees after the events so far."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

_STARTS = {"TEXT_MESSAGE_START": "text", "REASONING_MESSAGE_START": "reasoning"}
_CONTENTS = {"TEXT_MESSAGE_CONTENT": "text", "REASONING_MESSAGE_CONTENT": "reasoning"}


@dataclass(slots=True)
class AgUiClient:
    """Applies events to messages like the official client, which never drops any.

    `messages` are in order of appearance; duplicate tool results or texts are visible.
    """

    messages: list[dict[str, Any]] = field(default_factory=list)
    outcome: str | None = None
    result: Any = None
    error: tuple[str, str | None] | None = None

    def apply(self, events: Iterable[Mapping[str, Any]]) -> "AgUiClient":
        """Apply events in order; return the client."""
        for event in events:
            self._apply(event)
        return self

    def _apply(self, event: Mapping[str, Any]) -> None:
        kind = event["type"]
        if kind == "ACTIVITY_SNAPSHOT":
            self._put(event["messageId"], "activity", event["content"])
        elif kind == "ACTIVITY_DELTA":
            self._patch(event["messageId"], event["patch"])
        elif kind == "TOOL_CALL_START":
            self._add(event["toolCallId"], "call", {"name": event["toolCallName"], "arguments": ""})
        elif kind == "TOOL_CALL_ARGS":
            self._find(event["toolCallId"], "call")["arguments"] += event["delta"]
        elif kind == "TOOL_CALL_RESULT":
            self._add(event["messageId"], "result", event["content"])
        elif kind in _STARTS:
            self._add(event["messageId"], _STARTS[kind], {"text": ""})
        elif kind in _CONTENTS:
            self._find(event["messageId"], _CONTENTS[kind])["text"] += event["delta"]
        elif kind == "RUN_FINISHED":
            self.outcome = event["outcome"]["type"]
            self.result = event.get("result")
        elif kind == "RUN_ERROR":
            self.outcome = "error"
            self.error = event["message"], event.get("code")

    def activity(self, message_id: str) -> dict[str, Any]:
        """Return the content of an activity message."""
        return self._find(message_id, "activity")

    def results(self) -> dict[str, str]:
        """Return the contents of the tool results by message id."""
        return {m["id"]: m["content"] for m in self.messages if m["kind"] == "result"}

    def calls(self) -> dict[str, dict[str, Any]]:
        """Return the tool calls by id, each with `name` and `arguments` (JSON text)."""
        return {m["id"]: m["content"] for m in self.messages if m["kind"] == "call"}

    def _put(self, message_id: str, kind: str, content: Any) -> None:
        for message in self.messages:
            if (message["id"], message["kind"]) == (message_id, kind):
                message["content"] = content
                return
        self._add(message_id, kind, content)

    def _patch(self, message_id: str, operations: Iterable[Mapping[str, Any]]) -> None:
        """Apply a JSON Patch; the backend only uses `add` on members of the root."""
        content = dict(self.activity(message_id))
        for one in operations:
            assert one["op"] == "add"
            name = one["path"].removeprefix("/")
            assert name.replace("_", "").isalpha(), one
            content[name] = one["value"]
        self._put(message_id, "activity", content)

    def _add(self, message_id: str, kind: str, content: Any) -> None:
        self.messages.append({"id": message_id, "kind": kind, "content": content})

    def _find(self, message_id: str, kind: str) -> dict[str, Any]:
        for message in self.messages:
            if (message["id"], message["kind"]) == (message_id, kind):
                content: dict[str, Any] = message["content"]
                return content
        raise AssertionError(f"{kind} {message_id!r} was never opened: {self.messages!r}")
