import { describe, expect, it } from "vitest";
import { href, match, safeNext } from "../src/lib/router";

const ORIGIN = "https://shield.example";

describe("routes", () => {
  it.each([
    ["/console", "live"],
    ["/console/", "live"],
    ["/console/live", "live"],
    ["/console/live/", "live"],
    ["/console/reset-password", "resetPassword"],
    ["/console/people", "people"],
    ["/console/people/7f1d0a0e", "person"],
    ["/console/nothing", "unknown"],
    ["/console/jobs", "unknown"],
    ["/consolex/live", "unknown"],
    ["/", "unknown"],
    ["/console/jobs/%E0%A4%A", "unknown"],
  ])("%s is %s", (path, name) => {
    expect(match(path).name).toBe(name);
  });

  it.each(["plain", "a/b?c#d", "ünï", "<img src=x>", "%2e"])("carry the id %s", (id) => {
    expect(match(new URL(href("job", { id }), ORIGIN).pathname)).toEqual({ name: "job", params: { id } });
  });

  it("have a query", () => {
    expect(href("live", {}, "status=running")).toBe("/console/live?status=running");
  });
});

describe("the page after the login", () => {
  it.each([
    ["/console/jobs/a?x=1", "/console/jobs/a?x=1"],
    [`${ORIGIN}/console/mine`, "/console/mine"],
    [null, "/console/live"],
    ["https://evil.example/console/live", "/console/live"],
    ["//evil.example/console/live", "/console/live"],
    ["/\\evil.example", "/console/live"],
    ["javascript:alert(1)", "/console/live"],
    ["/auth/logout", "/console/live"],
    ["/console/login?next=/console/login", "/console/live"],
    ["http://[", "/console/live"],
  ])("of %s is %s", (next, expected) => {
    expect(safeNext(next, ORIGIN)).toBe(expected);
  });
});
