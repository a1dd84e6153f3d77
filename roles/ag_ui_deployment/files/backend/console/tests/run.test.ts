import { describe, expect, it } from "vitest";
import { applyToRun, EMPTY_RUN, type Run } from "../src/job/run";
import { entriesOf, merged, stepOf, toneOf } from "../src/job/timeline";
import type { JsonObject } from "../src/lib/untrusted";
import { answer, gap, JOB, runFinished, runStarted, snapshot, toolCall, toolResult } from "./events";

function folded(events: readonly JsonObject[], start: Run = EMPTY_RUN): Run {
  return events.reduce((run, event) => applyToRun(run, JOB, event, 0), start);
}

describe("the run of a job", () => {
  const call = toolCall("c1", "lightrag_query", { query: "why?" }, { at: 1_000, eventId: "start" });
  const result = toolResult("c1", { result: { answer: "because" } }, { at: 3_500 });

  it("has its tool calls with arguments, results and times", () => {
    const run = folded([runStarted(), ...call, result]);
    expect([...run.calls.values()]).toEqual([
      {
        id: "c1",
        name: "lightrag_query",
        args: '{"query":"why?"}',
        result: '{"result":{"answer":"because"}}',
        startedAt: 1_000,
        endedAt: 3_500,
      },
    ]);
  });

  it("appends nothing twice when parts come again after a reconnect", () => {
    const events = [runStarted(), ...call, result, ...answer("because")];
    const once = folded(events);
    const twice = folded(events, once);
    expect(twice.calls).toEqual(once.calls);
    expect([...twice.texts.values()]).toEqual(["because"]);
    expect(twice.steps).toEqual(once.steps);
  });

  it("has one step for each event of Shield, with its data", () => {
    const end = { at: 5_000, eventId: "end", type: "job:complete" };
    const run = folded([...call, snapshot({ status: "completed", latest: { result: { pages: 3 } } }, end), runFinished("success", end)]);
    expect([...run.steps.values()].map(({ eventId, data }) => [eventId, data])).toEqual([
      ["start", {}],
      ["end", { result: { pages: 3 } }],
    ]);
    expect(run.ended).toBe(true);
  });

  it("shows a gap", () => {
    const run = folded([gap({ after: "1763856000000-0", reason: "expired", message: "<b>gone</b>" })]);
    expect(run.gap).toMatchObject({ reason: "expired", after: 1_763_856_000_000, before: null });
  });
});

describe("the timeline", () => {
  const stored = (id: string, type: string, at: number) =>
    stepOf({ id: `${at}-0`, event_id: id, type, occurred_at: new Date(at).toISOString(), data: { n: at }, metadata: {} });

  it("joins the history and the stream; what both have counts once", () => {
    const history = [stored("a", "job:started", 1_000), stored("b", "job:progress", 2_000)];
    const live = folded([snapshot({ status: "running" }, { eventId: "b", at: 2_000 }), snapshot({ status: "running" }, { eventId: "c", at: 3_000 })]);
    const steps = merged(history, live.steps.values());
    expect(steps.map(({ eventId, streamId }) => [eventId, streamId])).toEqual([
      ["a", "1000-0"],
      ["b", "2000-0"],
      ["c", null],
    ]);
  });

  it("folds the work between two other events into one entry", () => {
    const steps = ["job:started", "rag:chunk_processed", "rag:vector_stored", "job:progress", "tool:start", "job:progress", "job:complete"].map((type, index) =>
      stored(`e${index}`, type, index * 1_000),
    );
    expect(entriesOf(steps).map(({ first, steps: all, isGroup }) => [first.type, all.length, isGroup])).toEqual([
      ["job:started", 1, false],
      ["rag:chunk_processed", 3, true],
      ["tool:start", 1, false],
      ["job:progress", 1, false],
      ["job:complete", 1, false],
    ]);
  });

  it.each([
    ["job:failed", "bad"],
    ["error", "bad"],
    ["ingestion.completed", "good"],
    ["job:cancelled", "stopped"],
    ["tool:start", "start"],
    ["job:queued", "plain"],
  ])("marks %s as %s", (type, tone) => {
    expect(toneOf(type)).toBe(tone);
  });
});
