import { describe, expect, it } from "vitest";
import { formatAge, formatBytes, formatClock, formatDateTime, formatDuration, formatRate, isoTime, parseTime } from "../src/lib/format";

describe("formats", () => {
  it.each([
    [0, "0 B"],
    [1_000, "1000 B"],
    [1_536, "1.5 KiB"],
    [20 * 1024 ** 2, "20 MiB"],
    [3 * 1024 ** 4, "3072 GiB"],
  ])("%i bytes as %s", (bytes, text) => {
    expect(formatBytes(bytes)).toBe(text);
  });

  it.each([
    [-5, "0.0 s"],
    [1_290, "1.2 s"],
    [48_999, "48 s"],
    [185_000, "3 min 05 s"],
    [2 * 3_600_000 + 7 * 60_000, "2 h 07 min"],
    [76 * 3_600_000, "3 d 4 h"],
  ])("a duration of %i ms as %s", (milliseconds, text) => {
    expect(formatDuration(milliseconds)).toBe(text);
  });

  it.each([
    [1_500, "just now"],
    [-1_500, "just now"],
    [12_000, "12 s ago"],
    [-3_600_000, "in 1 h"],
  ])("an age of %i ms as %s", (age, text) => {
    expect(formatAge(1e12 - age, 1e12)).toBe(text);
  });

  it.each([Number.NaN, Number.POSITIVE_INFINITY, 1e300])("no time of %s", (time) => {
    expect([formatDateTime(time), formatClock(time), isoTime(time)]).toEqual(["unknown time", "unknown time", undefined]);
  });

  it.each([
    [0, "0"],
    [0.02, "0.1"],
    [0.44, "0.4"],
    [1_234.5, "1,235"],
  ])("a rate of %f as %s", (rate, text) => {
    expect(formatRate(rate)).toBe(text);
  });

  it("reads times", () => {
    expect(parseTime("2026-11-30T10:00:00Z")).toBe(1_796_032_800_000);
    expect([parseTime("soon"), parseTime(null), parseTime(undefined)]).toEqual([null, null, null]);
  });
});
