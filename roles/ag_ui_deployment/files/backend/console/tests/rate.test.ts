import { describe, expect, it } from "vitest";
import { rateOf, type Sample, withSample } from "../src/stream/rate";

const after = (...samples: readonly (readonly [seconds: number, added: number])[]): number | null =>
  rateOf(samples.reduce<readonly Sample[]>((kept, [seconds, added]) => withSample(kept, { at: seconds * 1000, added }), []));

describe("the rate of events", () => {
  it("is unknown until there are two reports some time apart", () => {
    expect(after()).toBeNull();
    expect(after([0, 10])).toBeNull();
    expect(after([0, 10], [0.5, 500])).toBeNull();
  });

  it("is the mean of the last half minute", () => {
    expect(after([0, 100], [5, 1_100])).toBe(200);
    expect(after([0, 0], [5, 5_000], [30, 5_000], [35, 5_000])).toBe(0);
    expect(after([0, 0], [5, 1_000], [30, 1_000], [35, 1_300])).toBe(10);
  });

  it("is unknown again after a long pause, and for another stream", () => {
    expect(after([0, 100], [600, 200_000])).toBeNull();
    expect(after([0, 100], [5, 1_100], [10, 3])).toBeNull();
    expect(after([0, 100], [5, 1_100], [10, 3], [15, 53])).toBe(10);
  });
});
