/** AG-UI events as the backend makes them from the events of one job. */

import type { JsonObject } from "../src/lib/untrusted";

export const JOB = "0c9d5a61-0b5e-4f3c-9a5e-5f0f2c1d7a11";

let events = 0;

interface Options {
  job?: string;
  at?: number;
  type?: string;
  eventId?: string;
  workspace?: string;
}

function stamped(event: JsonObject, { job = JOB, at = 1_000, type = "job:progress", eventId, workspace }: Options): JsonObject {
  events += 1;
  const metadata = { job_id: job, shield_type: type, event_id: eventId ?? `e${events}`, ...(workspace && { workspace }) };
  return { ...event, timestamp: at, metadata };
}

export function runStarted(options: Options = {}): JsonObject {
  const runId = options.job ?? JOB;
  return stamped({ type: "RUN_STARTED", threadId: "default", runId, protocolVersion: "1.0" }, { type: "job:queued", ...options });
}

export function snapshot(content: JsonObject, options: Options = {}): JsonObject {
  const job = options.job ?? JOB;
  return stamped({ type: "ACTIVITY_SNAPSHOT", messageId: `job:${job}`, activityType: "hx.shield.job", content: { job_id: job, ...content } }, options);
}

export function delta(changes: JsonObject, options: Options = {}): JsonObject {
  const patch = Object.entries(changes).map(([name, value]) => ({ op: "add", path: `/${name}`, value }));
  return stamped({ type: "ACTIVITY_DELTA", messageId: `job:${options.job ?? JOB}`, activityType: "hx.shield.job", patch }, options);
}

export function totals(content: JsonObject, options: Options = {}): JsonObject {
  const messageId = `rag:${options.job ?? JOB}`;
  return stamped({ type: "ACTIVITY_SNAPSHOT", messageId, activityType: "hx.shield.rag", content }, { type: "rag:entity_extracted", ...options });
}

export function toolCall(id: string, name: string, args: JsonObject, options: Options = {}): JsonObject[] {
  const of = { type: "tool:start", ...options };
  return [
    stamped({ type: "TOOL_CALL_START", toolCallId: id, toolCallName: name }, of),
    stamped({ type: "TOOL_CALL_ARGS", toolCallId: id, delta: JSON.stringify(args) }, of),
    stamped({ type: "TOOL_CALL_END", toolCallId: id }, of),
  ];
}

export function toolResult(id: string, content: JsonObject, options: Options = {}): JsonObject {
  return stamped({ type: "TOOL_CALL_RESULT", messageId: `res:${id}`, toolCallId: id, content: JSON.stringify(content), role: "tool" }, { type: "tool:complete", ...options });
}

export function answer(text: string, options: Options = {}): JsonObject[] {
  const messageId = `answer:${options.job ?? JOB}`;
  const of = { type: "query.completed", ...options };
  return [
    stamped({ type: "TEXT_MESSAGE_START", messageId, role: "assistant" }, of),
    stamped({ type: "TEXT_MESSAGE_CONTENT", messageId, delta: text }, of),
    stamped({ type: "TEXT_MESSAGE_END", messageId }, of),
  ];
}

export function runFinished(outcome: "success" | "cancelled" = "success", options: Options = {}): JsonObject {
  const runId = options.job ?? JOB;
  const type = outcome === "success" ? "job:complete" : "job:cancelled";
  return stamped({ type: "RUN_FINISHED", threadId: "default", runId, outcome: { type: outcome }, result: {} }, { type, ...options });
}

export function runError(message: string, options: Options = {}): JsonObject {
  return stamped({ type: "RUN_ERROR", message }, { type: "job:failed", ...options });
}

export function gap(value: JsonObject): JsonObject {
  return { type: "CUSTOM", name: "hx.shield.gap", value };
}
