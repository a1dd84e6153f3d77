import { describe, expect, it } from "vitest";
import { actionLabel, auditQuery, formatAuditFilters, NO_AUDIT_FILTERS, parseAuditFilters } from "../src/audit/filters";

const NOW = Date.parse("2026-11-30T12:00:00Z");

describe("the filters of the audit log", () => {
  it("survive the address", () => {
    const query = "actor=alice%40shield.test&action=role.change&outcome=denied&target=user%3Ax&since=1h";
    expect(formatAuditFilters(parseAuditFilters(query))).toBe(query);
  });

  it("leave out what the API would reject", () => {
    const query = new URLSearchParams({ action: "constructor", outcome: "lost", actor: "a\0", target: "t".repeat(513), since: "soon" });
    expect(parseAuditFilters(query.toString())).toEqual(NO_AUDIT_FILTERS);
    expect(auditQuery(NO_AUDIT_FILTERS, NOW)).toEqual({});
  });

  it("become parameters of the API", () => {
    expect(auditQuery(parseAuditFilters("action=login&since=1h&until=2026-11-30T11:30:00Z"), NOW)).toEqual({
      action: "login",
      since: "2026-11-30T11:00:00.000Z",
      until: "2026-11-30T11:30:00.000Z",
    });
  });
});

describe("the label of an action", () => {
  it.each([
    ["mfa.change", "Second factor changed"],
    ["later.release", "later.release"],
    ["constructor", "constructor"],
  ])("%s: %s", (action, expected) => {
    expect(actionLabel(action)).toBe(expected);
  });
});
