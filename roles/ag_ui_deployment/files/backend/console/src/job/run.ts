/** One job in detail, folded from the AG-UI events of its stream. */

import { asObject, asText, type JsonObject } from "../lib/untrusted";
import { gapOf, type Gap } from "../live/gap";
import { applyEvent, dataOf, describe, type LiveJob } from "../live/live-job";

export interface ToolCall {
  readonly id: string;
  readonly name: string;
  /** JSON as text. */
  readonly args: string;
  readonly result: string | null;
  readonly startedAt: number;
  readonly endedAt: number | null;
}

/** A Shield event, from the stream or from the history. */
export interface Step {
  readonly eventId: string;
  readonly type: string;
  readonly at: number;
  readonly text: string;
  readonly data: JsonObject;
  /** Only events of the history have it. */
  readonly metadata: JsonObject | null;
  readonly streamId: string | null;
}

export interface Run {
  readonly job: LiveJob | undefined;
  readonly calls: ReadonlyMap<string, ToolCall>;
  /** Texts by message, such as the answer to a question. */
  readonly texts: ReadonlyMap<string, string>;
  readonly steps: ReadonlyMap<string, Step>;
  readonly gap: Gap | null;
  readonly ended: boolean;
}

export const EMPTY_RUN: Run = {
  job: undefined,
  calls: new Map(),
  texts: new Map(),
  steps: new Map(),
  gap: null,
  ended: false,
};

/** More steps than this are not kept from the stream; the history has them. */
const STEPS_MAX = 5_000;
const TEXT_MAX = 1_000_000;

/**
 * Applies an event. After a reconnect, parts of the run come again: a call and a text begin anew, so
 * that nothing is appended twice.
 */
export function applyToRun(run: Run, jobId: string, event: JsonObject, now: number): Run {
  const gap = gapOf(event);
  if (gap) return { ...run, gap };
  const job = applyEvent(run.job, jobId, event, now);
  const at = typeof event["timestamp"] === "number" ? event["timestamp"] : now;
  return {
    ...run,
    job,
    calls: callsAfter(run.calls, event, at),
    texts: textsAfter(run.texts, event),
    steps: stepsAfter(run.steps, event, at),
    ended: run.ended || event["type"] === "RUN_FINISHED" || event["type"] === "RUN_ERROR",
  };
}

function callsAfter(calls: Run["calls"], event: JsonObject, at: number): Run["calls"] {
  const id = asText(event["toolCallId"]);
  if (id === null) return calls;
  const call = calls.get(id);
  switch (event["type"]) {
    case "TOOL_CALL_START":
      return put(calls, id, {
        id,
        name: asText(event["toolCallName"]) ?? "tool",
        args: "",
        result: call?.result ?? null,
        startedAt: at,
        endedAt: call?.endedAt ?? null,
      });
    case "TOOL_CALL_ARGS":
      return call ? put(calls, id, { ...call, args: (call.args + String(event["delta"] ?? "")).slice(0, TEXT_MAX) }) : calls;
    case "TOOL_CALL_RESULT": {
      const result = String(event["content"] ?? "");
      const known = call ?? { id, name: "tool", args: "", startedAt: at };
      return put(calls, id, { ...known, result, endedAt: at });
    }
    default:
      return calls;
  }
}

function textsAfter(texts: Run["texts"], event: JsonObject): Run["texts"] {
  const id = asText(event["messageId"]);
  if (id === null) return texts;
  if (event["type"] === "TEXT_MESSAGE_START") return put(texts, id, "");
  if (event["type"] !== "TEXT_MESSAGE_CONTENT") return texts;
  return put(texts, id, ((texts.get(id) ?? "") + String(event["delta"] ?? "")).slice(0, TEXT_MAX));
}

/** One Shield event becomes several AG-UI events: the first one that carries its data counts. */
function stepsAfter(steps: Run["steps"], event: JsonObject, at: number): Run["steps"] {
  const metadata = asObject(event["metadata"]);
  const eventId = asText(metadata["event_id"]);
  const type = asText(metadata["shield_type"]);
  if (eventId === null || type === null) return steps;
  const known = steps.get(eventId);
  const data = dataOf(event);
  if (known && (Object.keys(known.data).length > 0 || Object.keys(data).length === 0)) return steps;
  const changed = new Map(steps);
  changed.set(eventId, { eventId, type, at, text: describe(type, event), data, metadata: null, streamId: null });
  if (changed.size > STEPS_MAX) changed.delete(changed.keys().next().value!);
  return changed;
}

function put<V>(map: ReadonlyMap<string, V>, key: string, value: V): ReadonlyMap<string, V> {
  return new Map(map).set(key, value);
}
