/** The filters of the page Live, which are kept in its address. */

import { isStatus, type JobStatus } from "../api/types";
import { parseTime } from "../lib/format";
import type { LiveJob } from "./live-job";

/** `since` and `until` are ISO times, or `since` is a period such as `24h`. Empty: no filter. */
export interface Filters {
  readonly status: JobStatus | "";
  readonly kind: string;
  readonly workspace: string;
  readonly owner: string;
  readonly since: string;
  readonly until: string;
}

export const NO_FILTERS: Filters = { status: "", kind: "", workspace: "", owner: "", since: "", until: "" };

export const PERIODS: readonly { value: string; label: string; milliseconds: number }[] = [
  { value: "15m", label: "Last 15 minutes", milliseconds: 15 * 60_000 },
  { value: "1h", label: "Last hour", milliseconds: 3_600_000 },
  { value: "24h", label: "Last 24 hours", milliseconds: 24 * 3_600_000 },
  { value: "7d", label: "Last 7 days", milliseconds: 7 * 24 * 3_600_000 },
];

const NAMES = Object.keys(NO_FILTERS) as (keyof Filters)[];
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
// As the API limits them.
const TEXT_MAX = 200;
const CONTROL = /[\x00-\x1f\x7f]/;

/** Reads the filters of an address, without those that the API would reject. */
export function parseFilters(query: string): Filters {
  const params = new URLSearchParams(query);
  const text = (name: string): string => {
    const value = params.get(name) ?? "";
    return value.length <= TEXT_MAX && !CONTROL.test(value) ? value : "";
  };
  const status = params.get("status");
  const owner = text("owner");
  const since = text("since");
  const until = text("until");
  return {
    status: isStatus(status) ? status : "",
    kind: text("kind"),
    workspace: text("workspace"),
    owner: UUID.test(owner) ? owner.toLowerCase() : "",
    since: PERIODS.some(({ value }) => value === since) ? since : asIso(since),
    until: asIso(until),
  };
}

function asIso(text: string): string {
  const time = parseTime(text);
  return time === null ? "" : new Date(time).toISOString();
}

export function formatFilters(filters: Filters): string {
  const params = new URLSearchParams();
  for (const name of NAMES) if (filters[name]) params.set(name, filters[name]);
  return params.toString();
}

/** The bounds of the time of creation: from `since` on, before `until`. */
export function boundsOf(filters: Filters, now: number): { since: number; until: number } {
  const period = PERIODS.find(({ value }) => value === filters.since);
  return {
    since: period ? now - period.milliseconds : (parseTime(filters.since) ?? Number.NEGATIVE_INFINITY),
    until: parseTime(filters.until) ?? Number.POSITIVE_INFINITY,
  };
}

export interface JobListQuery {
  status?: JobStatus;
  kind?: string;
  workspace?: string;
  owner?: string;
  since?: string;
  until?: string;
}

/** The parameters of `GET /api/jobs`. */
export function queryOf(filters: Filters, now: number): JobListQuery {
  const { since, until } = boundsOf(filters, now);
  return {
    ...(filters.status && { status: filters.status }),
    ...(filters.kind && { kind: filters.kind }),
    ...(filters.workspace && { workspace: filters.workspace }),
    ...(filters.owner && { owner: filters.owner }),
    ...(Number.isFinite(since) && { since: new Date(since).toISOString() }),
    ...(Number.isFinite(until) && { until: new Date(until).toISOString() }),
  };
}

/** Returns the test that a job passes which the list with these filters would have. */
export function matcher(filters: Filters, now: number): (job: LiveJob) => boolean {
  const { since, until } = boundsOf(filters, now);
  return (job) =>
    (!filters.status || job.status === filters.status) &&
    (!filters.kind || job.kind === filters.kind) &&
    (!filters.workspace || job.workspace === filters.workspace) &&
    (!filters.owner || job.ownerId === filters.owner) &&
    job.createdAt >= since &&
    job.createdAt < until;
}
