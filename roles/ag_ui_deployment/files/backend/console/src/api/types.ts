/** Short names of the schemas that the pages use. */

import type { components } from "./schema";

type Schemas = components["schemas"];

export type Job = Schemas["Job"];
export type JobStatus = Schemas["JobStatus"];
export type JobCounts = Record<JobStatus, number>;
export type User = Schemas["User"];
export type Permissions = Schemas["PermissionOverview"];
export type Tool = Schemas["ToolInfo"];
export type SessionInfo = Schemas["SessionInfo"];
export type StreamReport = Schemas["StreamReport"];
export type InstanceStatus = Schemas["InstanceStatus"];
export type StreamGap = Schemas["StreamGap"];
export type DeadLetter = Schemas["DeadLetter"];
export type Thread = Schemas["Thread"];
export type ThreadSummary = Schemas["ThreadSummary"];
export type RunStatus = Schemas["RunStatus"];
export type RunInput = Schemas["RunInput"];
export type ToolCallInfo = Schemas["ToolCallInfo"];
export type Role = Schemas["Role"];
export type Account = Schemas["Account"];
export type Invitation = Schemas["Invitation"];
export type PendingInvitation = Schemas["PendingInvitation"];
export type Workspace = Schemas["Workspace"];
export type Member = Schemas["Member"];
export type AuditEntry = Schemas["AuditEntry"];
export type AuditAction = Schemas["Action"];
export type Outcome = Schemas["Outcome"];
export type Verification = Schemas["Verification"];
export type Setting = Schemas["Setting"];

/** A stored event of a job. */
export interface StoredEvent {
  id: string;
  event_id: string;
  type: string;
  occurred_at: string;
  data: Record<string, unknown>;
  metadata: Record<string, unknown>;
}

export const ROLES: readonly Role[] = ["viewer", "contributor", "admin"];
export const OUTCOMES: readonly Outcome[] = ["success", "failure", "denied"];
export const STATUSES: readonly JobStatus[] = ["queued", "running", "completed", "failed", "cancelled"];

export function isStatus(value: unknown): value is JobStatus {
  return STATUSES.includes(value as JobStatus);
}

export function hasEnded(status: JobStatus): boolean {
  return status !== "queued" && status !== "running";
}
