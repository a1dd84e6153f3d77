import { describe, expect, it } from "vitest";
import { boundsOf, formatQuery, optionParam, parsePeriod, periodQuery, textParam } from "../src/lib/query";

const NOW = Date.parse("2026-11-30T12:00:00Z");

describe("the query of an address", () => {
  it("has no empty values", () => {
    expect(formatQuery({ a: "1 & 2", b: "", c: "ü" })).toBe("a=1+%26+2&c=%C3%BC");
  });

  it("gives texts that the API accepts", () => {
    const params = new URLSearchParams({ fine: "a b", long: "abcd", control: "a\nb" });
    expect(["fine", "long", "control", "missing"].map((name) => textParam(params, name, 3))).toEqual(["a b", "", "", ""]);
  });

  it("gives known options", () => {
    const params = new URLSearchParams("role=admin&other=constructor");
    expect(optionParam(params, "role", ["admin", "viewer"])).toBe("admin");
    expect(optionParam(params, "other", ["admin", "viewer"])).toBe("");
    expect(optionParam(params, "missing", ["admin", "viewer"])).toBe("");
  });
});

describe("a period", () => {
  it.each([
    ["since=24h", { since: "2026-11-29T12:00:00.000Z" }],
    ["since=2026-11-30T10:00:00%2B01:00&until=2026-11-30T11:00:00Z", { since: "2026-11-30T09:00:00.000Z", until: "2026-11-30T11:00:00.000Z" }],
    ["until=24h&since=yesterday", {}],
    ["", {}],
  ])("of the address %s", (query, expected) => {
    expect(periodQuery(parsePeriod(new URLSearchParams(query)), NOW)).toEqual(expected);
  });

  it("without bounds has all times", () => {
    expect(boundsOf({ since: "", until: "" }, NOW)).toEqual({ since: Number.NEGATIVE_INFINITY, until: Number.POSITIVE_INFINITY });
  });
});
