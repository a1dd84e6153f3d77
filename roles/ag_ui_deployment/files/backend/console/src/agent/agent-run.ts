/** One run of the agent, folded from its AG-UI events. */

import type { RunStatus } from "../api/types";
import { asArray, asObject, asText, type JsonObject } from "../lib/untrusted";
import { gapOf } from "../live/gap";
import { idOf, textOf } from "./messages";

export interface CallTimes {
  readonly startedAt: number;
  readonly endedAt: number | null;
}

export interface RunFailure {
  readonly message: string;
  /** Whether the same request may soon succeed. */
  readonly retryable: boolean;
}

export interface AgentRun {
  readonly id: string;
  readonly status: RunStatus;
  /** What the run adds to the conversation, in order of its first event. */
  readonly messages: ReadonlyMap<string, JsonObject>;
  /** By the id of the tool call. */
  readonly times: ReadonlyMap<string, CallTimes>;
  readonly failure: RunFailure | null;
  /** Whether the model stopped because its answer had become too long. */
  readonly isCut: boolean;
}

export function newRun(id: string): AgentRun {
  return { id, status: "running", messages: new Map(), times: new Map(), failure: null, isCut: false };
}

/**
 * Applies an event. A resumed stream begins with the start of each text and call that is open, which
 * then go on; after a gap notice the whole run follows.
 *
 * @param now Milliseconds since 1970, for events without a time.
 */
export function applyToAgentRun(run: AgentRun, event: JsonObject, now: number): AgentRun {
  if (gapOf(event)) return newRun(run.id);
  const at = typeof event["timestamp"] === "number" ? event["timestamp"] : now;
  switch (event["type"]) {
    case "TEXT_MESSAGE_START":
    case "TEXT_MESSAGE_CONTENT":
      return append(run, event, "assistant");
    case "REASONING_MESSAGE_START":
    case "REASONING_MESSAGE_CONTENT":
      return append(run, event, "reasoning");
    case "TOOL_CALL_START":
      return startCall(run, event, at);
    case "TOOL_CALL_ARGS":
      return appendArguments(run, event);
    case "TOOL_CALL_RESULT":
      return addResult(run, event, at);
    case "RUN_FINISHED": {
      const isCancelled = asObject(event["outcome"])["type"] === "cancelled";
      const isCut = asObject(event["result"])["finishReason"] === "length";
      return { ...run, status: isCancelled ? "cancelled" : "finished", isCut };
    }
    case "RUN_ERROR": {
      const message = asText(event["message"]) ?? "The run has failed.";
      return { ...run, status: "failed", failure: { message, retryable: asObject(event["metadata"])["retryable"] === true } };
    }
    default:
      return run;
  }
}

function put(run: AgentRun, message: JsonObject): AgentRun {
  return { ...run, messages: new Map(run.messages).set(idOf(message), message) };
}

function append(run: AgentRun, event: JsonObject, role: string): AgentRun {
  const id = asText(event["messageId"]);
  if (id === null) return run;
  const message = run.messages.get(id) ?? { id, role };
  return put(run, { ...message, content: textOf(message) + textOfDelta(event) });
}

function textOfDelta(event: JsonObject): string {
  return typeof event["delta"] === "string" ? event["delta"] : "";
}

function startCall(run: AgentRun, event: JsonObject, at: number): AgentRun {
  const id = asText(event["toolCallId"]);
  if (id === null || run.times.has(id)) return run;
  const parent = asText(event["parentMessageId"]) ?? id;
  const message = run.messages.get(parent) ?? { id: parent, role: "assistant" };
  const call = { id, type: "function", function: { name: asText(event["toolCallName"]) ?? "tool", arguments: "" } };
  const toolCalls = [...asArray(message["toolCalls"]), call];
  const times = new Map(run.times).set(id, { startedAt: at, endedAt: null });
  return { ...put(run, { ...message, toolCalls }), times };
}

function appendArguments(run: AgentRun, event: JsonObject): AgentRun {
  const isMeant = (call: unknown): boolean => asObject(call)["id"] === event["toolCallId"];
  const message = [...run.messages.values()].findLast(({ toolCalls }) => asArray(toolCalls).some(isMeant));
  if (!message) return run;
  const toolCalls = asArray(message["toolCalls"]).map((entry) => {
    if (!isMeant(entry)) return entry;
    const call = asObject(entry);
    const { name, arguments: args } = asObject(call["function"]);
    return { ...call, function: { name, arguments: String(args) + textOfDelta(event) } };
  });
  return put(run, { ...message, toolCalls });
}

function addResult(run: AgentRun, event: JsonObject, at: number): AgentRun {
  const id = asText(event["messageId"]);
  const toolCallId = asText(event["toolCallId"]);
  if (id === null || toolCallId === null) return run;
  const content = typeof event["content"] === "string" ? event["content"] : "";
  const times = new Map(run.times).set(toolCallId, { startedAt: at, ...run.times.get(toolCallId), endedAt: at });
  return { ...put(run, { id, role: "tool", toolCallId, content }), times };
}
