/** What the address of the page People says. */

import { type Account, type Role, ROLES } from "../api/types";
import { parseTime } from "../lib/format";
import { formatQuery, optionParam, textParam } from "../lib/query";

const TABS = ["users", "invitations", "workspaces", "usage"] as const;
export type Tab = (typeof TABS)[number];

/** The tab of an address: that of the accounts if it names none. */
export function tabOf(query: string): Tab {
  return optionParam(new URLSearchParams(query), "tab", TABS) || "users";
}

export interface UserFilters {
  readonly search: string;
  readonly role: Role | "";
  readonly active: "true" | "false" | "";
}

export const NO_USER_FILTERS: UserFilters = { search: "", role: "", active: "" };

export function parseUserFilters(query: string): UserFilters {
  const params = new URLSearchParams(query);
  return {
    search: textParam(params, "search", 200),
    role: optionParam(params, "role", ROLES),
    active: optionParam(params, "active", ["true", "false"]),
  };
}

export function formatUserFilters(filters: UserFilters): string {
  return formatQuery({ ...filters });
}

/** The parameters of `GET /admin/users`. */
export function userQuery({ search, role, active }: UserFilters): { search?: string; role?: Role; active?: boolean } {
  return { ...(search && { search }), ...(role && { role }), ...(active && { active: active === "true" }) };
}

/** Days of an address, as `2026-11-30`; empty without a bound. */
export interface Days {
  readonly since: string;
  readonly until: string;
}

export function parseDays(query: string): Days {
  const params = new URLSearchParams(query);
  return { since: dayOf(params.get("since")), until: dayOf(params.get("until")) };
}

function dayOf(text: string | null): string {
  return text !== null && /^\d{4}-\d{2}-\d{2}$/.test(text) && parseTime(text) !== null ? text : "";
}

export type AccountState = "active" | "locked" | "inactive";

export function stateOf(account: Account, now: number): AccountState {
  if (!account.active) return "inactive";
  return (parseTime(account.locked_until) ?? 0) > now ? "locked" : "active";
}
