/** The events of a job in the order of their times, and what of them a timeline shows. */

import { type StoredEvent } from "../api/types";
import { parseTime } from "../lib/format";
import { describe } from "../live/live-job";
import type { Step } from "./run";

export function stepOf(event: StoredEvent): Step {
  return {
    eventId: event.event_id,
    type: event.type,
    at: parseTime(event.occurred_at) ?? 0,
    text: describe(event.type, { type: "RAW", event: { data: event.data } }),
    data: event.data,
    metadata: event.metadata,
    streamId: event.id,
  };
}

/** Joins the history and the events of the stream; an event that both have counts once. */
export function merged(history: readonly Step[], live: Iterable<Step>): Step[] {
  const known = new Set(history.map((step) => step.eventId));
  const steps = [...history];
  for (const step of live) if (!known.has(step.eventId)) steps.push(step);
  // Stable: what has the same time stays in the order of the stream.
  return steps.sort((a, b) => a.at - b.at);
}

/** An entry of the timeline: one event, or many of the daily work between two others. */
export interface Entry {
  readonly key: string;
  readonly first: Step;
  readonly last: Step;
  readonly steps: readonly Step[];
  readonly isGroup: boolean;
}

export function entriesOf(steps: readonly Step[]): Entry[] {
  const entries: { steps: Step[]; isWork: boolean }[] = [];
  for (const step of steps) {
    const isWork = isWorkType(step.type);
    const last = entries.at(-1);
    if (isWork && last?.isWork) last.steps.push(step);
    else entries.push({ steps: [step], isWork });
  }
  return entries.map((entry) => ({
    key: entry.steps[0]!.eventId,
    first: entry.steps[0]!,
    last: entry.steps.at(-1)!,
    steps: entry.steps,
    isGroup: entry.steps.length > 1,
  }));
}

function isWorkType(type: string): boolean {
  return type.startsWith("rag:") || /[.:]progress$/.test(type);
}

export function toneOf(type: string): "start" | "good" | "bad" | "stopped" | "plain" {
  if (/[.:](failed|error|task_failed)$/.test(type) || type === "error") return "bad";
  if (/[.:](complete|completed)$/.test(type)) return "good";
  if (/[.:]cancelled$/.test(type)) return "stopped";
  if (/[.:](start|started)$/.test(type)) return "start";
  return "plain";
}
