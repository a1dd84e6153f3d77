/** The filters of the page Audit, which are kept in its address. */

import { type AuditAction, type Outcome, OUTCOMES } from "../api/types";
import { formatQuery, optionParam, parsePeriod, type Period, periodQuery, textParam } from "../lib/query";

export interface AuditFilters extends Period {
  readonly actor: string;
  readonly action: AuditAction | "";
  readonly outcome: Outcome | "";
  readonly target: string;
}

export const NO_AUDIT_FILTERS: AuditFilters = { actor: "", action: "", outcome: "", target: "", since: "", until: "" };

/** All actions: one that the API gets anew must be added here for the console to compile. */
export const ACTION_LABELS: Readonly<Record<AuditAction, string>> = {
  login: "Login",
  lockout: "Lockout",
  unlock: "Unlock",
  logout: "Logout",
  "token.reuse": "Refresh token used again",
  "password.change": "Password changed",
  "password.reset": "Password reset",
  "user.register": "Registration",
  "user.verify_email": "Address confirmed",
  "mfa.change": "Second factor changed",
  "user.invite": "Invitation",
  "invitation.withdraw": "Invitation withdrawn",
  "user.create": "Account created",
  "user.deactivate": "Account deactivated",
  "user.activate": "Account activated",
  "user.rename": "Account renamed",
  "role.change": "Role changed",
  "workspace.create": "Workspace created",
  "workspace.delete": "Workspace deleted",
  "membership.change": "Membership changed",
  "tool.call": "Tool call",
  "agent.run": "Agent run",
  "agent.cancel": "Agent run cancelled",
  "agent.retain": "Old agent data deleted",
  "thread.delete": "Conversation deleted",
  "upload.complete": "Upload completed",
  "upload.delete": "Upload deleted",
  "access.denied": "Access denied",
  "audit.export": "Audit log exported",
  "audit.verify": "Audit log verified",
  "audit.retain": "Old audit entries deleted",
  "dead_letter.replay": "Dead letter replayed",
  "dead_letter.discard": "Dead letter discarded",
  "settings.change": "Settings changed",
};

export const ACTIONS = Object.keys(ACTION_LABELS) as AuditAction[];

/** Entries of other releases may have other actions. */
export function actionLabel(action: string): string {
  return Object.hasOwn(ACTION_LABELS, action) ? ACTION_LABELS[action as AuditAction] : action;
}

/** As the API limits texts. */
const TEXT_MAX = 512;

/** Reads the filters of an address, without those that the API would reject. */
export function parseAuditFilters(query: string): AuditFilters {
  const params = new URLSearchParams(query);
  return {
    actor: textParam(params, "actor", TEXT_MAX),
    action: optionParam(params, "action", ACTIONS),
    outcome: optionParam(params, "outcome", OUTCOMES),
    target: textParam(params, "target", TEXT_MAX),
    ...parsePeriod(params),
  };
}

export function formatAuditFilters(filters: AuditFilters): string {
  return formatQuery({ ...filters });
}

interface AuditQuery {
  actor?: string;
  action?: AuditAction;
  outcome?: Outcome;
  target?: string;
  since?: string;
  until?: string;
}

/** The parameters of a request for the entries of these filters. */
export function auditQuery(filters: AuditFilters, now: number): AuditQuery {
  return {
    ...(filters.actor && { actor: filters.actor }),
    ...(filters.action && { action: filters.action }),
    ...(filters.outcome && { outcome: filters.outcome }),
    ...(filters.target && { target: filters.target }),
    ...periodQuery(filters, now),
  };
}
