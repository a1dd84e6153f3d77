/** AG-UI events as the backend sends them for a run of the agent. */

import type { JsonObject } from "../src/lib/untrusted";

const THREAD = "thread-1";

export const runStarted = (runId: string): JsonObject => ({ type: "RUN_STARTED", timestamp: 1_000, threadId: THREAD, runId, protocolVersion: "1.0" });

export const runFinished = (runId: string, outcome: JsonObject = { type: "success" }, finishReason = "stop"): JsonObject => ({
  type: "RUN_FINISHED",
  timestamp: 9_000,
  threadId: THREAD,
  runId,
  outcome,
  result: { rounds: 1, finishReason },
});

export const runError = (message: string, retryable = false): JsonObject => ({ type: "RUN_ERROR", timestamp: 9_000, message, code: "model_failed", metadata: { retryable } });

export const textStart = (messageId: string): JsonObject => ({ type: "TEXT_MESSAGE_START", timestamp: 2_000, messageId, role: "assistant" });

export const textDelta = (messageId: string, delta: string): JsonObject => ({ type: "TEXT_MESSAGE_CONTENT", timestamp: 2_000, messageId, delta });

export const reasoning = (messageId: string, delta: string): JsonObject[] => [
  { type: "REASONING_START", timestamp: 1_500, messageId },
  { type: "REASONING_MESSAGE_START", timestamp: 1_500, messageId, role: "reasoning" },
  { type: "REASONING_MESSAGE_CONTENT", timestamp: 1_500, messageId, delta },
];

export const callStart = (toolCallId: string, toolCallName: string, parentMessageId: string): JsonObject => ({
  type: "TOOL_CALL_START",
  timestamp: 3_000,
  toolCallId,
  toolCallName,
  parentMessageId,
});

export const callArgs = (toolCallId: string, delta: string): JsonObject => ({ type: "TOOL_CALL_ARGS", timestamp: 3_000, toolCallId, delta });

export const callResult = (toolCallId: string, content: string): JsonObject => ({
  type: "TOOL_CALL_RESULT",
  timestamp: 5_000,
  messageId: `${toolCallId}:result`,
  toolCallId,
  content,
  role: "tool",
});

/** Frames of the stream; the first event has the id `from`-0, as the backend numbers them. */
export function framesOf(events: readonly JsonObject[], from = 1): string {
  return events.map((event, index) => `id: ${from + index}-0\nevent: ${String(event["type"])}\ndata: ${JSON.stringify(event)}\n\n`).join("");
}
