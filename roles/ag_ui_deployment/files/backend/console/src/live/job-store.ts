/** The jobs that the page Live knows, newest first. Its listeners are told at most once per frame. */

import { hasEnded, type Job } from "../api/types";
import { oncePerFrame, type Readable } from "../lib/store";
import type { JsonObject } from "../lib/untrusted";
import { applyEvent, jobIdOf, type LiveJob, mergeListed } from "./live-job";

/** More jobs than this are not kept: those that ended first go first. */
const JOBS_MAX = 20_000;

export class JobStore implements Readable<number> {
  readonly #jobs = new Map<string, LiveJob>();
  readonly #listeners = new Set<() => void>();
  readonly #notify: () => void;
  readonly #now: () => number;
  readonly #max: number;
  #order: string[] = [];
  #orderIsStale = false;
  #version = 0;

  constructor(options: { now?: () => number; request?: (run: () => void) => unknown; max?: number } = {}) {
    this.#now = options.now ?? Date.now;
    this.#max = options.max ?? JOBS_MAX;
    this.#notify = oncePerFrame(() => {
      for (const listener of [...this.#listeners]) listener();
    }, options.request);
  }

  /** Changes with every change. */
  get value(): number {
    return this.#version;
  }

  get size(): number {
    return this.#jobs.size;
  }

  subscribe(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  get(id: string): LiveJob | undefined {
    return this.#jobs.get(id);
  }

  /** Applies an event of the stream; one outside all runs changes nothing. Returns the job after it. */
  apply(event: JsonObject): LiveJob | null {
    const id = jobIdOf(event);
    if (id === null) return null;
    const job = applyEvent(this.#jobs.get(id), id, event, this.#now());
    this.#put(job);
    return job;
  }

  merge(jobs: readonly Job[]): void {
    for (const job of jobs) this.#put(mergeListed(this.#jobs.get(job.id), job));
  }

  remove(id: string): void {
    if (!this.#jobs.delete(id)) return;
    this.#orderIsStale = true;
    this.#changed();
  }

  clear(): void {
    this.#jobs.clear();
    this.#order = [];
    this.#changed();
  }

  values(): IterableIterator<LiveJob> {
    return this.#jobs.values();
  }

  /** The jobs that pass a test, newest first. */
  select(test: (job: LiveJob) => boolean): LiveJob[] {
    const selected: LiveJob[] = [];
    for (const id of this.#ordered()) {
      const job = this.#jobs.get(id);
      if (job && test(job)) selected.push(job);
    }
    return selected;
  }

  #put(job: LiveJob): void {
    const before = this.#jobs.get(job.id);
    if (before?.createdAt !== job.createdAt) this.#orderIsStale = true;
    this.#jobs.set(job.id, job);
    if (before === undefined && this.#jobs.size > this.#max) this.#evict();
    this.#changed();
  }

  #ordered(): readonly string[] {
    if (this.#orderIsStale) {
      const jobs = [...this.#jobs.values()];
      jobs.sort((a, b) => b.createdAt - a.createdAt || (a.id < b.id ? 1 : -1));
      this.#order = jobs.map((job) => job.id);
      this.#orderIsStale = false;
    }
    return this.#order;
  }

  /** Removes a tenth, so that the search for the oldest is rare. */
  #evict(): void {
    const jobs = [...this.#jobs.values()];
    const age = (job: LiveJob): number => (hasEnded(job.status) ? (job.endedAt ?? 0) : Number.MAX_VALUE);
    jobs.sort((a, b) => age(a) - age(b) || a.createdAt - b.createdAt);
    for (const job of jobs.slice(0, Math.ceil(this.#max / 10))) this.#jobs.delete(job.id);
    this.#orderIsStale = true;
  }

  #changed(): void {
    this.#version += 1;
    this.#notify();
  }
}
