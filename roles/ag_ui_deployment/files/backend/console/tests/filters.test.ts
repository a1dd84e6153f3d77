import { describe, expect, it } from "vitest";
import { formatFilters, matcher, NO_FILTERS, parseFilters, queryOf } from "../src/live/filters";
import type { LiveJob } from "../src/live/live-job";

const NOW = Date.parse("2026-11-30T12:00:00Z");
const OWNER = "7f1d0a0e-6a3c-4f70-8f61-3d2f6a1c0001";

function job(changed: Partial<LiveJob>): LiveJob {
  return { id: "j", kind: "crawl", workspace: "default", status: "running", ownerId: OWNER, createdAt: NOW, ...changed } as LiveJob;
}

describe("filters", () => {
  it.each([
    "status=running&kind=crawl&workspace=red&owner=7f1d0a0e-6a3c-4f70-8f61-3d2f6a1c0001&since=24h",
    "since=2026-11-30T10%3A00%3A00.000Z&until=2026-11-30T11%3A00%3A00.000Z",
    "",
  ])("survive the address: %s", (query) => {
    expect(formatFilters(parseFilters(query))).toBe(query);
  });

  it("leave out what the API would reject", () => {
    const query = new URLSearchParams({ status: "lost", owner: "me", since: "soon", until: "?", kind: "a\nb", workspace: "w".repeat(201) });
    expect(parseFilters(query.toString())).toEqual(NO_FILTERS);
  });

  it("become parameters of the list", () => {
    expect(queryOf(parseFilters(`status=failed&owner=${OWNER}&since=1h`), NOW)).toEqual({
      status: "failed",
      owner: OWNER,
      since: "2026-11-30T11:00:00.000Z",
    });
    expect(queryOf(NO_FILTERS, NOW)).toEqual({});
  });

  it.each([
    ["status=failed", {}, false],
    ["status=running", {}, true],
    ["kind=ingest", {}, false],
    ["workspace=red", {}, false],
    ["workspace=red", { workspace: "red" }, true],
    [`owner=${OWNER}`, {}, true],
    [`owner=${OWNER}`, { ownerId: null }, false],
    ["since=1h", { createdAt: NOW - 3_600_001 }, false],
    ["since=1h", { createdAt: NOW - 3_600_000 }, true],
    ["until=2026-11-30T12:00:00Z", {}, false],
    ["until=2026-11-30T12:00:00.001Z", {}, true],
  ])("%s on %o: %s", (query, changed, expected) => {
    expect(matcher(parseFilters(query), NOW)(job(changed))).toBe(expected);
  });
});
