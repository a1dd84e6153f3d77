/** What a row of the page Live shows, made from AG-UI events and from the list of jobs. */

import { hasEnded, isStatus, type Job, type JobStatus } from "../api/types";
import { asWords, parseTime } from "../lib/format";
import {
  asArray,
  asNumber,
  asObject,
  asText,
  firstText,
  type JsonObject,
  parseJson,
  shortened,
} from "../lib/untrusted";

export interface Counter {
  readonly label: string;
  readonly value: number;
  readonly total: number | null;
}

/** Times are in milliseconds since 1970. */
export interface LiveJob {
  readonly id: string;
  readonly kind: string | null;
  readonly subject: string | null;
  readonly ownerId: string | null;
  readonly ownerName: string | null;
  readonly workspace: string;
  readonly status: JobStatus;
  readonly percent: number | null;
  readonly phase: string | null;
  readonly counters: readonly Counter[];
  readonly lastEvent: string | null;
  readonly lastEventAt: number | null;
  readonly createdAt: number;
  readonly endedAt: number | null;
  readonly error: string | null;
  readonly lost: boolean;
  /** Whether the list of jobs has been read for it: events name neither the owner nor the subject. */
  readonly listed: boolean;
  /** The contents of the activities, to which deltas apply. */
  readonly activities: Readonly<Record<string, JsonObject>>;
}

const DEFAULT_WORKSPACE = "default";
const TEXT_MAX = 300;
const RANK: Record<JobStatus, number> = { queued: 0, running: 1, completed: 2, failed: 2, cancelled: 2 };
const SUBJECT_FIELDS = ["subject", "url", "file_path", "source_uri", "query", "question"];

const PHASES: Readonly<Record<string, string>> = {
  "job:accepted": "Accepted",
  "job:queued": "Waiting",
  "job:started": "Started",
  "job:progress": "Working",
  "job:complete": "Completed",
  "job:failed": "Failed",
  "job:cancelled": "Cancelled",
  "ingestion.queued": "Waiting",
  "ingestion.started": "Started",
  "ingestion.progress": "Ingesting",
  "ingestion.completed": "Completed",
  "ingestion.failed": "Failed",
  "query.started": "Searching",
  "query.completed": "Answered",
  "job.started": "Started",
  "job.completed": "Completed",
  "result.ready": "Result ready",
  "rag:chunk_processed": "Splitting text",
  "rag:entity_extracted": "Extracting entities",
  "rag:vector_stored": "Storing vectors",
  "rag:graph_updated": "Updating the graph",
  error: "Failed",
};

const COUNTERS: readonly { label: string; value: readonly string[]; total?: readonly string[] }[] = [
  { label: "pages", value: ["pages_crawled"], total: ["pages_total"] },
  { label: "chunks", value: ["chunks_processed"], total: ["chunks_total"] },
  { label: "entities", value: ["entities_extracted"] },
  { label: "vectors", value: ["vectors_stored"] },
  { label: "nodes", value: ["nodes_added"] },
  { label: "edges", value: ["edges_added"] },
];

function newJob(id: string, createdAt: number): LiveJob {
  return {
    id,
    kind: null,
    subject: null,
    ownerId: null,
    ownerName: null,
    workspace: DEFAULT_WORKSPACE,
    status: "queued",
    percent: null,
    phase: null,
    counters: [],
    lastEvent: null,
    lastEventAt: null,
    createdAt,
    endedAt: null,
    error: null,
    lost: false,
    listed: false,
    activities: {},
  };
}

/** The job that an event belongs to; null outside all runs. */
export function jobIdOf(event: JsonObject): string | null {
  return asText(asObject(event["metadata"])["job_id"]);
}

/**
 * Applies an AG-UI event to its job. Events may come again after a reconnect, which changes nothing.
 *
 * @param now The time that counts if the event has none.
 */
export function applyEvent(before: LiveJob | undefined, jobId: string, event: JsonObject, now: number): LiveJob {
  const metadata = asObject(event["metadata"]);
  const at = asNumber(event["timestamp"]) ?? now;
  const job = before ?? newJob(jobId, at);
  const workspace = asText(metadata["workspace"]) ?? job.workspace;
  if (event["type"] === "RUN_STARTED") {
    // The time of the first event of the job.
    return { ...job, workspace, createdAt: job.listed ? job.createdAt : at };
  }
  const changed: LiveJob = { ...job, workspace, ...changeOf(job, event, at) };
  const type = asText(metadata["shield_type"]);
  if (type === null || (job.lastEventAt !== null && at < job.lastEventAt)) return changed;
  return { ...changed, phase: phaseOf(type, event) ?? job.phase, lastEvent: describe(type, event), lastEventAt: at };
}

function changeOf(job: LiveJob, event: JsonObject, at: number): Partial<LiveJob> {
  switch (event["type"]) {
    case "ACTIVITY_SNAPSHOT":
      return activityChange(job, event, asObject(event["content"]));
    case "ACTIVITY_DELTA":
      return activityChange(job, event, patched(contentBefore(job, event), event["patch"]));
    case "TOOL_CALL_ARGS":
      // The backend sends the arguments of a call in one piece.
      return { subject: job.subject ?? subjectOf(asObject(parseJson(asText(event["delta"]) ?? ""))) };
    case "RUN_FINISHED":
      return ended(job, asObject(event["outcome"])["type"] === "cancelled" ? "cancelled" : "completed", at);
    case "RUN_ERROR":
      return { ...ended(job, "failed", at), error: job.error ?? asText(event["message"]) };
    default:
      return {};
  }
}

function ended(job: LiveJob, status: JobStatus, at: number): Partial<LiveJob> {
  if (hasEnded(job.status)) return { endedAt: job.endedAt ?? at };
  return { status, endedAt: at, percent: status === "completed" ? 100 : job.percent };
}

function contentBefore(job: LiveJob, event: JsonObject): JsonObject {
  const id = asText(event["messageId"]);
  return id !== null && Object.hasOwn(job.activities, id) ? job.activities[id]! : {};
}

/** Applies the operations that the backend sends: they add or remove members of the content. */
function patched(content: JsonObject, patch: unknown): JsonObject {
  const result: Record<string, unknown> = { ...content };
  for (const entry of asArray(patch)) {
    const { op, path, value } = asObject(entry);
    const name = typeof path === "string" && /^\/[^/]+$/.test(path) ? path.slice(1) : null;
    if (name === null || name === "__proto__") continue;
    if (op === "add" || op === "replace") result[name] = value;
    else if (op === "remove") delete result[name];
  }
  return result;
}

function activityChange(job: LiveJob, event: JsonObject, content: JsonObject): Partial<LiveJob> {
  const id = asText(event["messageId"]) ?? "";
  const kind = event["activityType"];
  // The contents of calls are not shown in rows.
  if (kind !== "hx.shield.job" && kind !== "hx.shield.rag") return {};
  const latest = asObject(content["latest"]);
  const activities = { ...job.activities, [id]: content };
  const change: Partial<LiveJob> = { activities, counters: countersOf(activities, job.counters) };
  if (kind === "hx.shield.rag") return change;
  const status = isStatus(content["status"]) ? content["status"] : job.status;
  const percent = asNumber(content["percent"]);
  return {
    ...change,
    kind: asText(content["kind"]) ?? job.kind,
    subject: job.subject ?? subjectOf(latest),
    status: RANK[status] > RANK[job.status] ? status : job.status,
    percent: percent === null ? job.percent : Math.min(100, Math.max(job.percent ?? 0, percent)),
  };
}

function subjectOf(data: JsonObject): string | null {
  const text = firstText(data, SUBJECT_FIELDS);
  return text === null ? null : shortened(text, TEXT_MAX);
}

function countersOf(activities: LiveJob["activities"], before: readonly Counter[]): readonly Counter[] {
  const sources = Object.values(activities).flatMap((content) => [content, asObject(content["latest"])]);
  const counters: Counter[] = [];
  for (const { label, value, total } of COUNTERS) {
    const known = before.find((counter) => counter.label === label);
    const found = greatest(sources, value, known?.value ?? null);
    if (found === null) continue;
    counters.push({ label, value: found, total: total ? greatest(sources, total, known?.total ?? null) : null });
  }
  return counters;
}

function greatest(sources: readonly JsonObject[], names: readonly string[], start: number | null): number | null {
  let found = start;
  for (const source of sources) {
    for (const name of names) {
      const value = Object.hasOwn(source, name) ? asNumber(source[name]) : null;
      if (value !== null && (found === null || value > found)) found = value;
    }
  }
  return found;
}

/** The data of the Shield event behind an AG-UI event, as far as the event carries it. */
export function dataOf(event: JsonObject): JsonObject {
  switch (event["type"]) {
    case "ACTIVITY_SNAPSHOT":
      return asObject(asObject(event["content"])["latest"]);
    case "ACTIVITY_DELTA":
      return asObject(patched({}, event["patch"])["latest"]);
    case "TOOL_CALL_RESULT":
      return asObject(parseJson(asText(event["content"]) ?? ""));
    case "RUN_FINISHED":
      return asObject(event["result"]);
    case "RUN_ERROR":
      return { message: event["message"] };
    case "RAW":
      return asObject(asObject(event["event"])["data"]);
    default:
      return {};
  }
}

function phaseOf(type: string, event: JsonObject): string | null {
  const data = dataOf(event);
  const named = firstText(data, ["phase", "stage", "step"]);
  if (named !== null) return shortened(asWords(named), 60);
  if (Object.hasOwn(PHASES, type)) return PHASES[type]!;
  const tool = toolOf(type, event);
  return tool === null ? null : shortened(`Tool ${tool}`, 60);
}

function toolOf(type: string, event: JsonObject): string | null {
  if (!type.startsWith("tool")) return null;
  return firstText(dataOf(event), ["tool_name", "tool"]) ?? asText(event["toolCallName"]);
}

/** What happened, in a line. */
export function describe(type: string, event: JsonObject): string {
  const data = dataOf(event);
  const message = firstText(data, ["message", "error", "error_message", "detail", "reason"]);
  const tool = toolOf(type, event);
  if (tool !== null) {
    const verb = /(error|failed)$/.test(type) ? "failed" : type === "tool:start" ? "called" : type === "tool:complete" ? "answered" : null;
    const text = verb ? `${tool} ${verb}` : tool;
    return shortened(message === null ? text : `${text}: ${message}`, TEXT_MAX);
  }
  return shortened(message ?? (Object.hasOwn(PHASES, type) ? PHASES[type]! : type), TEXT_MAX);
}

/** Merges a job from the list. Lists may be a second behind the stream: states never go back. */
export function mergeListed(before: LiveJob | undefined, job: Job): LiveJob {
  const createdAt = parseTime(job.created_at) ?? 0;
  const live = before ?? newJob(job.id, createdAt);
  const newer = RANK[job.status] > RANK[live.status] ? job.status : live.status;
  const status = before === undefined ? job.status : newer;
  const updatedAt = parseTime(job.updated_at);
  return {
    ...live,
    kind: job.kind ?? live.kind,
    subject: job.subject ?? live.subject,
    ownerId: job.owner_id ?? live.ownerId,
    ownerName: job.owner_name ?? live.ownerName,
    workspace: job.workspace ?? live.workspace,
    status,
    percent: status === "completed" ? 100 : highest(live.percent, job.percent),
    counters: live.counters.length > 0 ? live.counters : countersOf({ result: { ...job.result, latest: job.result?.["result"] } }, []),
    lastEvent: live.lastEvent ?? job.error,
    lastEventAt: live.lastEventAt ?? updatedAt,
    createdAt: createdAt || live.createdAt,
    endedAt: parseTime(job.completed_at) ?? live.endedAt,
    error: live.error ?? job.error,
    lost: job.lost ?? false,
    listed: true,
  };
}

function highest(first: number | null, second: number | null): number | null {
  return first === null ? second : second === null ? first : Math.max(first, second);
}
