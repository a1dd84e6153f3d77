"""The prompt determines the model's answers, so that a test can specify the whole conversation.

Each line of the last user message that begins with `call NAME {json}` is one step;
` && call NAME {json}` on the same line adds a call to that step, and ` && say WORDS` adds text.
The next step follows the results of the one before; after the last step the model says `Done: `
and the last result.

`loop NAME {json}` never ends. `words N` says N words. The answer to anything else is `Echo: ` and
the message. A line `think WORDS` adds reasoning before each answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

Message = Mapping[str, Any]

_THINK: Final = re.compile(r"^think (.+)$", re.MULTILINE)
_WORDS: Final = re.compile(r"^words (\d{1,6})$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class ToolCall:
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Turn:
    """One answer: text, calls or both, with or without reasoning."""

    text: str = ""
    calls: tuple[ToolCall, ...] = ()
    reasoning: str = ""


def text_of(message: Message) -> str:
    """Return a message's text; joins content that consists of parts."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return " ".join(part.get("text", "") for part in content)


def _call(text: str) -> ToolCall:
    _, name, *arguments = text.strip().split(" ", 2)
    return ToolCall(name, arguments[0] if arguments else "{}")


def _step(line: str) -> Turn:
    parts = line.split(" && ")
    texts = [part.removeprefix("say ") for part in parts if part.startswith("say ")]
    return Turn(" ".join(texts), tuple(_call(part) for part in parts if part.startswith("call ")))


def _steps(prompt: str) -> list[Turn]:
    lines = [line.strip() for line in prompt.splitlines()]
    return [_step(line) for line in lines if line.startswith("call ")]


def _prompt_and_rest(messages: Sequence[Message]) -> tuple[str, Sequence[Message]]:
    for position in range(len(messages) - 1, -1, -1):
        if messages[position].get("role") == "user":
            return text_of(messages[position]), messages[position + 1 :]
    return "", messages


def prompt_of(messages: Sequence[Message]) -> str:
    """Return the last user message."""
    return _prompt_and_rest(messages)[0]


def next_turn(messages: Sequence[Message]) -> Turn:
    """Return the model's next answer in a conversation."""
    prompt, rest = _prompt_and_rest(messages)
    reasoning = _THINK.search(prompt)
    return replace(_next_turn(prompt, rest), reasoning=reasoning[1] if reasoning else "")


def _next_turn(prompt: str, rest: Sequence[Message]) -> Turn:
    if prompt.startswith("loop "):
        return Turn(calls=(_call(prompt),))
    steps = _steps(prompt)
    done = sum(bool(message.get("tool_calls")) for message in rest)
    if done < len(steps):
        return steps[done]
    results = [text_of(message) for message in rest if message.get("role") == "tool"]
    if results:
        return Turn(f"Done: {results[-1]}")
    if words := _WORDS.search(prompt):
        return Turn(" ".join(f"word{number}" for number in range(int(words[1]))))
    return Turn(f"Echo: {prompt}")
