import { describe, expect, it } from "vitest";
import { RowKeys, rowWindow } from "../src/live/row-window";

describe("the window of rows", () => {
  it("has the rows in sight and some around them", () => {
    const { start, end } = rowWindow(5_600, 560, 56, 1_000);
    expect(start).toBeLessThanOrEqual(100 - 4);
    expect(end).toBeGreaterThanOrEqual(110 + 4);
    expect(end - start).toBeLessThan(28);
  });

  it.each([0, 1, 55, 56, 1_000, 27_944, 55_440, 1e9, -500])("covers the whole height at %i", (top) => {
    const { start, end, before, after } = rowWindow(top, 560, 56, 1_000);
    expect(before + (end - start) * 56 + after).toBe(56_000);
    const visible = Math.min(Math.max(0, top), 56_000 - 560);
    expect(before).toBeLessThanOrEqual(visible);
    expect(end * 56).toBeGreaterThanOrEqual(visible + 560);
  });

  it("has all rows of a short list", () => {
    expect(rowWindow(0, 900, 56, 3)).toEqual({ start: 0, end: 3, before: 0, after: 0 });
    expect(rowWindow(0, 900, 56, 0)).toEqual({ start: 0, end: 0, before: 0, after: 0 });
  });
});

describe("the keys of rows", () => {
  it("stay with their jobs, and go from those that leave to those that come", () => {
    const keys = new RowKeys();
    expect(keys.assign(["a", "b", "c"])).toEqual([0, 1, 2]);
    expect(keys.assign(["b", "c", "d"])).toEqual([1, 2, 0]);
    expect(keys.assign(["new", "b", "c", "d"])).toEqual([3, 1, 2, 0]);
    expect(keys.assign(["x", "y"])).toEqual([3, 1]);
    expect(keys.assign([])).toEqual([]);
    expect(keys.assign(["a", "b"])).toEqual([0, 1]);
  });
});
