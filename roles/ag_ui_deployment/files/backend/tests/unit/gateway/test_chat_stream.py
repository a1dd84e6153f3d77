"""Parsing the frames of a model's stream."""

import pytest

from src.services.gateway.chat_stream import (
    ChatChunk,
    ErrorFrameError,
    ToolCallFragment,
    Usage,
    read_frame,
)


@pytest.mark.parametrize(
    ("line", "chunk"),
    [
        ("", None),
        (": keep-alive", None),
        ("data: [DONE]", None),
        ('data: {"choices":[{"delta":{"role":"assistant","content":""}}]}', ChatChunk()),
        ('data: {"choices":[{"delta":{"content":"hi"}}]}', ChatChunk("hi")),
        ('data: {"choices":[{"delta":{"reasoning_content":"hm","content":null}}]}',
         ChatChunk(reasoning="hm")),
        ('data: {"choices":[{"delta":{"content":null},"finish_reason":"stop"}]}',
         ChatChunk(finish_reason="stop")),
        ('data: {"choices":[],"usage":{"prompt_tokens":2,"completion_tokens":3}}',
         ChatChunk(usage=Usage(2, 3))),
        ('data: {"choices":[{"delta":{"tool_calls":[{"index":1,"id":"c","function":{"name":"f"}}]}}]}',
         ChatChunk(tool_calls=(ToolCallFragment(1, "c", "f"),))),
        ('data: {"choices":[{"delta":{"tool_calls":[{"function":{"arguments":"{"}}]}}]}',
         ChatChunk(tool_calls=(ToolCallFragment(0, arguments="{"),))),
    ],
)  # fmt: skip
def test_valid_frames(line: str, chunk: ChatChunk | None) -> None:
    assert read_frame(line) == chunk


@pytest.mark.parametrize("count", ["1e30", "-1", "1.5", "true", '"7"', "[7]", str(2**53)])
def test_invalid_usage_is_ignored(count: str) -> None:
    line = f'data: {{"choices":[],"usage":{{"prompt_tokens":{count},"completion_tokens":1}}}}'
    assert read_frame(line) == ChatChunk()


def test_chunk_without_content_is_falsy() -> None:
    assert not ChatChunk()
    assert ChatChunk(finish_reason="stop")


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ('data: {"error": {"message": "x", "code": "408"}}', 408),
        ('data: {"error": {"message": "x", "code": null}}', 500),
        ('data: {"error": "x"}', 500),
        ("data: {broken", 502),
        ("data: [1]", 502),
        ('data: {"choices":["odd"]}', 502),
        ('data: {"choices":[{"delta":{"content":["a"]}}]}', 502),
        ('data: {"choices":[{"delta":{"tool_calls":[{"function":{"arguments":{}}}]}}]}', 502),
        ('data: {"choices":[{"delta":{"tool_calls":[{"function":{"name":1}}]}}]}', 502),
    ],
)
def test_error_frames(line: str, status: int) -> None:
    with pytest.raises(ErrorFrameError) as caught:
        read_frame(line)
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("line", "overflow"),
    [
        ('data: {"error": {"message": "litellm.ContextWindowExceededError: x", "code": "400"}}', True),
        ('data: {"error": {"message": "x", "code": "context_length_exceeded"}}', True),
        ('data: {"error": {"message": null, "type": [], "code": {}}}', False),
        ('data: {"error": "ContextWindowExceededError"}', False),
    ],
)  # fmt: skip
def test_context_overflow_is_recognised(line: str, *, overflow: bool) -> None:
    with pytest.raises(ErrorFrameError) as caught:
        read_frame(line)
    assert caught.value.overflow is overflow
