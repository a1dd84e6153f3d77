"""Assembling the arguments of a tool call from the deltas of a model's stream."""

import json

from hypothesis import given
from hypothesis import strategies as st

from src.services.agent.tool_arguments import ToolArguments

VALUES = st.recursive(
    st.text(alphabet='ab"\\\\{}[]\n', max_size=6) | st.integers() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(max_size=3), VALUES, min_size=1, max_size=4)


@given(OBJECTS, st.lists(st.integers(1, 12)), st.sampled_from(["", "}", "{}", '{"a": 1}']))
def test_arguments_are_assembled_from_any_chunks_without_surplus(
    value: dict[str, object], lengths: list[int], surplus: str
) -> None:
    text = json.dumps(value)
    arguments = ToolArguments()
    assembled = ""
    rest = text + surplus
    for length in [*lengths, len(rest)]:
        assembled += arguments.add(rest[:length])
        rest = rest[length:]
    assert assembled + arguments.finish() == str(arguments) == text
    assert arguments.is_complete


@given(OBJECTS)
def test_arguments_are_incomplete_until_the_object_ends(value: dict[str, object]) -> None:
    text = json.dumps(value)
    for end in range(1, len(text)):
        arguments = ToolArguments()
        arguments.add(text[:end])
        assert arguments.is_partial
