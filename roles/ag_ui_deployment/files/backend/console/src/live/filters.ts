/** The filters of the page Live, which are kept in its address. */

import { isStatus, type JobStatus } from "../api/types";
import { boundsOf, formatQuery, parsePeriod, periodQuery, textParam } from "../lib/query";
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

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
/** As the API limits texts. */
const TEXT_MAX = 200;

/** Reads the filters of an address, without those that the API would reject. */
export function parseFilters(query: string): Filters {
  const params = new URLSearchParams(query);
  const text = (name: string): string => textParam(params, name, TEXT_MAX);
  const status = params.get("status");
  const owner = text("owner");
  return {
    status: isStatus(status) ? status : "",
    kind: text("kind"),
    workspace: text("workspace"),
    owner: UUID.test(owner) ? owner.toLowerCase() : "",
    ...parsePeriod(params),
  };
}

export function formatFilters(filters: Filters): string {
  return formatQuery({ ...NO_FILTERS, ...filters });
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
  return {
    ...(filters.status && { status: filters.status }),
    ...(filters.kind && { kind: filters.kind }),
    ...(filters.workspace && { workspace: filters.workspace }),
    ...(filters.owner && { owner: filters.owner }),
    ...periodQuery(filters, now),
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
