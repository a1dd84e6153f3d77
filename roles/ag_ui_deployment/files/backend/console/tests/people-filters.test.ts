import { describe, expect, it } from "vitest";
import type { Account } from "../src/api/types";
import { formatUserFilters, NO_USER_FILTERS, parseDays, parseUserFilters, stateOf, tabOf, userQuery } from "../src/people/filters";

const NOW = Date.parse("2026-11-30T12:00:00Z");

describe("the filters of users", () => {
  it("survive the address and become parameters of the API", () => {
    const query = "search=alice&role=admin&active=false";
    expect(formatUserFilters(parseUserFilters(query))).toBe(query);
    expect(userQuery(parseUserFilters(query))).toEqual({ search: "alice", role: "admin", active: false });
    expect(userQuery(NO_USER_FILTERS)).toEqual({});
  });

  it("leave out what the API would reject", () => {
    const query = new URLSearchParams({ search: "s".repeat(201), role: "root", active: "perhaps" });
    expect(parseUserFilters(query.toString())).toEqual(NO_USER_FILTERS);
  });
});

describe("the address of the page People", () => {
  it.each([
    ["", "users"],
    ["tab=usage", "usage"],
    ["tab=constructor", "users"],
  ])("%s shows %s", (query, tab) => {
    expect(tabOf(query)).toBe(tab);
  });

  it("has days", () => {
    expect(parseDays("since=2026-11-01&until=2026-02-40")).toEqual({ since: "2026-11-01", until: "" });
    expect(parseDays("since=24h")).toEqual({ since: "", until: "" });
  });
});

describe("the state of an account", () => {
  it.each([
    [{ active: true, locked_until: null }, "active"],
    [{ active: true, locked_until: "2026-11-30T12:00:01Z" }, "locked"],
    [{ active: true, locked_until: "2026-11-30T12:00:00Z" }, "active"],
    [{ active: false, locked_until: "2026-11-30T12:00:01Z" }, "inactive"],
  ])("%o is %s", (account, expected) => {
    expect(stateOf(account as Account, NOW)).toBe(expected);
  });
});
