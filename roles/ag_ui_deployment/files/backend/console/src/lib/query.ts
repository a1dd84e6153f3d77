/** Filters in the query of an address: texts, and periods of time. */

import { parseTime } from "./format";

const CONTROL = /[\x00-\x1f\x7f]/;

/** The text of a parameter; empty if the API would reject it. */
export function textParam(params: URLSearchParams, name: string, max: number): string {
  const value = params.get(name) ?? "";
  return value.length <= max && !CONTROL.test(value) ? value : "";
}

/** The value of a parameter if it is one of these, else empty. */
export function optionParam<T extends string>(params: URLSearchParams, name: string, options: readonly T[]): T | "" {
  return options.find((option) => option === params.get(name)) ?? "";
}

/** The query of these values, without empty ones. */
export function formatQuery(values: Readonly<Record<string, string>>): string {
  return new URLSearchParams(Object.entries(values).filter(([, value]) => value !== "")).toString();
}

/** `since` and `until` are ISO times, or `since` is a period such as `24h`. Empty: no bound. */
export interface Period {
  readonly since: string;
  readonly until: string;
}

export const PERIODS: readonly { value: string; label: string; milliseconds: number }[] = [
  { value: "15m", label: "Last 15 minutes", milliseconds: 15 * 60_000 },
  { value: "1h", label: "Last hour", milliseconds: 3_600_000 },
  { value: "24h", label: "Last 24 hours", milliseconds: 24 * 3_600_000 },
  { value: "7d", label: "Last 7 days", milliseconds: 7 * 24 * 3_600_000 },
];

export function parsePeriod(params: URLSearchParams): Period {
  const since = params.get("since") ?? "";
  return {
    since: PERIODS.some(({ value }) => value === since) ? since : asIso(since),
    until: asIso(params.get("until") ?? ""),
  };
}

function asIso(text: string): string {
  const time = parseTime(text);
  return time === null ? "" : new Date(time).toISOString();
}

/** The bounds in milliseconds since 1970: from `since` on, before `until`. */
export function boundsOf(period: Period, now: number): { since: number; until: number } {
  const relative = PERIODS.find(({ value }) => value === period.since);
  return {
    since: relative ? now - relative.milliseconds : (parseTime(period.since) ?? Number.NEGATIVE_INFINITY),
    until: parseTime(period.until) ?? Number.POSITIVE_INFINITY,
  };
}

/** The parameters of a request for this period. */
export function periodQuery(period: Period, now: number): { since?: string; until?: string } {
  const { since, until } = boundsOf(period, now);
  return {
    ...(Number.isFinite(since) && { since: new Date(since).toISOString() }),
    ...(Number.isFinite(until) && { until: new Date(until).toISOString() }),
  };
}
