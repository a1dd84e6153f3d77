import { describe, expect, it } from "vitest";
import { type AgentRun, applyToAgentRun, newRun } from "../src/agent/agent-run";
import type { JsonObject } from "../src/lib/untrusted";
import { callArgs, callResult, callStart, reasoning, runError, runFinished, runStarted, textDelta, textStart } from "./agent-events";
import { gap } from "./events";

function folded(events: readonly JsonObject[], start: AgentRun = newRun("r1")): AgentRun {
  return events.reduce((run, event) => applyToAgentRun(run, event, 0), start);
}

const EVENTS = [
  runStarted("r1"),
  ...reasoning("think", "Let me see."),
  textStart("m1"),
  textDelta("m1", "I look "),
  callStart("c1", "lightrag_query", "m1"),
  callArgs("c1", '{"query":'),
  textDelta("m1", "it up."),
  callArgs("c1", '"why?"}'),
  callResult("c1", '{"answer":"because"}'),
  textStart("m2"),
  textDelta("m2", "Because."),
  runFinished("r1"),
];

describe("a run of the agent", () => {
  it("becomes the messages that the backend stores", () => {
    expect([...folded(EVENTS).messages.values()]).toEqual([
      { id: "think", role: "reasoning", content: "Let me see." },
      {
        id: "m1",
        role: "assistant",
        content: "I look it up.",
        toolCalls: [{ id: "c1", type: "function", function: { name: "lightrag_query", arguments: '{"query":"why?"}' } }],
      },
      { id: "c1:result", role: "tool", toolCallId: "c1", content: '{"answer":"because"}' },
      { id: "m2", role: "assistant", content: "Because." },
    ]);
    expect(folded(EVENTS)).toMatchObject({ status: "finished", failure: null, isCut: false });
  });

  it("has the arguments of a call while they arrive, and its times", () => {
    const run = folded(EVENTS.slice(0, 8));
    expect(run.messages.get("m1")!["toolCalls"]).toMatchObject([{ function: { arguments: '{"query":' } }]);
    expect(run.times.get("c1")).toEqual({ startedAt: 3_000, endedAt: null });
    expect(folded(EVENTS).times.get("c1")).toEqual({ startedAt: 3_000, endedAt: 5_000 });
  });

  it.each([...EVENTS.keys()].slice(1))("goes on after an interruption behind event %i", (count) => {
    const before = folded(EVENTS.slice(0, count));
    // A resumed stream begins with the run and the start of what is open; all of it may be known.
    const opened = [runStarted("r1"), textStart("m1"), callStart("c1", "lightrag_query", "m1")].slice(0, count > 5 ? 3 : count > 4 ? 2 : 1);
    expect(folded([...opened, ...EVENTS.slice(count)], before)).toEqual(folded(EVENTS));
  });

  it("is the same if its last event comes again", () => {
    expect(folded([runStarted("r1"), EVENTS.at(-1)!], folded(EVENTS))).toEqual(folded(EVENTS));
  });

  it("begins anew after a gap, after which the whole run follows", () => {
    const notice = gap({ reason: "unknown", after: "90-0" });
    expect(folded([runStarted("r1"), notice, ...EVENTS.slice(1)], folded(EVENTS.slice(0, 7)))).toEqual(folded(EVENTS));
  });

  it.each([
    [runFinished("r1", { type: "cancelled" }), { status: "cancelled", failure: null }],
    [runError("The model's answer broke off.", true), { status: "failed", failure: { message: "The model's answer broke off.", retryable: true } }],
    [runFinished("r1", { type: "success" }, "length"), { status: "finished", isCut: true }],
  ])("says how it has ended: %j", (end, expected) => {
    expect(folded([runStarted("r1"), end])).toMatchObject(expected);
  });

  it.each<JsonObject>([
    { type: "TEXT_MESSAGE_CONTENT" },
    { type: "TEXT_MESSAGE_CONTENT", messageId: 7, delta: {} },
    { type: "TOOL_CALL_ARGS", toolCallId: "unknown", delta: "x" },
    { type: "TOOL_CALL_START", toolCallId: null },
    { type: "TOOL_CALL_RESULT", toolCallId: "c9" },
    { type: "__proto__" },
    {},
  ])("ignores an event that makes no sense: %j", (event) => {
    expect(folded([event])).toEqual(newRun("r1"));
  });
});
