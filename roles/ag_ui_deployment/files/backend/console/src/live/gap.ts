/** Notices that events were lost. */

import { asObject, asText, type JsonObject, shortened } from "../lib/untrusted";

export interface Gap {
  readonly reason: string;
  readonly message: string;
  /** Milliseconds since 1970, from the ids of the stream. */
  readonly after: number | null;
  readonly before: number | null;
}

const REASONS: Readonly<Record<string, string>> = {
  trimmed: "Events were removed from the stream before they could be stored.",
  expired: "The connection was away for longer than events are kept.",
  unknown: "The stream was made anew, so it is not known what is missing.",
};

/** Returns the gap if an event is such a notice. */
export function gapOf(event: JsonObject): Gap | null {
  if (event["type"] !== "CUSTOM" || event["name"] !== "hx.shield.gap") return null;
  const value = asObject(event["value"]);
  const reason = asText(value["reason"]) ?? "unknown";
  return {
    reason,
    message: Object.hasOwn(REASONS, reason) ? REASONS[reason]! : shortened(asText(value["message"]) ?? reason, 200),
    after: timeOf(value["after"]),
    before: timeOf(value["before"]),
  };
}

function timeOf(id: unknown): number | null {
  const milliseconds = typeof id === "string" ? /^(\d{1,16})-\d+$/.exec(id)?.[1] : undefined;
  return milliseconds === undefined || Number(milliseconds) === 0 ? null : Number(milliseconds);
}
