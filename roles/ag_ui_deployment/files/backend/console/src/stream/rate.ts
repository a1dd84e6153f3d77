/** The rate of events, from the counter of the stream at several times. */

export interface Sample {
  /** Milliseconds of any clock that never goes back. */
  readonly at: number;
  /** Entries that were ever added to the stream. */
  readonly added: number;
}

/** The rate is the mean over at most this time. */
const PERIOD_MS = 30_000;
/** In less time, the rate depends on how long the requests take. */
const PERIOD_MIN_MS = 2_000;

/** Returns the samples with another one, without those that are too old or of a stream that was made anew. */
export function withSample(samples: readonly Sample[], sample: Sample): readonly Sample[] {
  const last = samples.at(-1);
  const comparable = last !== undefined && sample.added < last.added ? [] : samples;
  return [...comparable.filter(({ at }) => sample.at - at <= PERIOD_MS), sample];
}

/** Events per second; null until it is known. */
export function rateOf(samples: readonly Sample[]): number | null {
  const [first, last] = [samples[0], samples.at(-1)];
  if (first === undefined || last === undefined || last.at - first.at < PERIOD_MIN_MS) return null;
  return ((last.added - first.added) * 1000) / (last.at - first.at);
}
