/** The page Live without its looks: the stream for the present, the list of jobs for the past. */

import { answerOf, api } from "../api/client";
import { ApiError } from "../api/problem";
import { hasEnded, type Job, type JobCounts, type JobStatus } from "../api/types";
import { Store } from "../lib/store";
import type { JsonObject } from "../lib/untrusted";
import { loadSession, session } from "../session";
import { Feed } from "./feed";
import { type Filters, formatFilters, type JobListQuery, matcher, NO_FILTERS, queryOf } from "./filters";
import { type Gap, gapOf } from "./gap";
import { JobStore } from "./job-store";
import type { LiveJob } from "./live-job";

const PAGE = 100;
const FULL_PAGE = 200;
/** At most this many pages are read to find all jobs that run. */
const ACTIVE_PAGES = 25;
const SINGLE_JOBS = 40;
/** The list may be a second behind the stream. */
const LIST_DELAY_MS = 1_500;
const LIST_INTERVAL_MS = 5_000;
const COUNTS_INTERVAL_MS = 5_000;
const GAPS_MAX = 5;

export interface Listing {
  readonly loading: boolean;
  readonly error: unknown;
  readonly nextCursor: string | null;
  /** The list has been read down to this time of creation. */
  readonly horizon: number;
}

const NO_JOBS: JobCounts = { queued: 0, running: 0, completed: 0, failed: 0, cancelled: 0 };

const NOTHING_LISTED: Listing = {
  loading: true,
  error: null,
  nextCursor: null,
  horizon: Number.POSITIVE_INFINITY,
};

export interface NoticedGap extends Gap {
  readonly key: number;
  readonly noticedAt: number;
}

export class LiveModel {
  readonly jobs = new JobStore();
  readonly listing = new Store<Listing>(NOTHING_LISTED);
  readonly counts = new Store<JobCounts | null>(null);
  readonly gaps = new Store<readonly NoticedGap[]>([]);
  readonly feed: Feed;
  #filters: Filters = NO_FILTERS;
  #loads = 0;
  #gapKeys = 0;
  #started = false;
  #detailTimer: number | null = null;
  #countsTimer: number | null = null;
  #countsAreStale = false;
  readonly #detailAttempts = new Map<string, number>();
  #permissions: unknown = null;

  constructor() {
    this.feed = new Feed({
      path: "/events",
      onEvent: (event) => this.#apply(event),
      onOpen: (complete) => void this.#opened(complete),
      checkSession: loadSession,
    });
  }

  start(): void {
    if (this.#started) return;
    this.#started = true;
    this.#permissions = currentPermissions();
    this.feed.start();
  }

  stop(): void {
    this.#started = false;
    this.feed.stop();
    for (const timer of [this.#detailTimer, this.#countsTimer]) if (timer !== null) clearTimeout(timer);
    this.#detailTimer = this.#countsTimer = null;
    this.#detailAttempts.clear();
  }

  get filters(): Filters {
    return this.#filters;
  }

  /** Reads the first page of the list with these filters. */
  async setFilters(filters: Filters): Promise<void> {
    const before = this.#filters;
    this.#filters = filters;
    this.listing.set(NOTHING_LISTED);
    // The counts are those of all states.
    if (formatFilters({ ...before, status: "" }) !== formatFilters({ ...filters, status: "" })) this.counts.set(null);
    void this.#loadCounts();
    await this.#loadPage(null);
  }

  async loadMore(): Promise<void> {
    const { loading, nextCursor } = this.listing.value;
    if (!loading && nextCursor !== null) await this.#loadPage(nextCursor);
  }

  async reload(): Promise<void> {
    await this.setFilters(this.#filters);
  }

  /**
   * The rows of the page. Those of jobs that ended before everything that has been listed are left
   * out: between them others would be missing.
   */
  rows(now: number): LiveJob[] {
    const matches = matcher(this.#filters, now);
    const { horizon } = this.listing.value;
    return this.jobs.select((job) => matches(job) && (job.createdAt >= horizon || !hasEnded(job.status)));
  }

  dismissGap(key: number): void {
    this.gaps.set(this.gaps.value.filter((gap) => gap.key !== key));
  }

  #apply(event: JsonObject): void {
    const gap = gapOf(event);
    if (gap) {
      this.#gapKeys += 1;
      const noticed = { ...gap, key: this.#gapKeys, noticedAt: Date.now() };
      this.gaps.set([noticed, ...this.gaps.value].slice(0, GAPS_MAX));
      void this.#compareWithList();
      return;
    }
    const job = this.jobs.apply(event);
    if (job === null) return;
    if (!job.listed) this.#scheduleDetails(LIST_DELAY_MS);
    const type = event["type"];
    if (type === "RUN_STARTED" || type === "RUN_FINISHED" || type === "RUN_ERROR") this.#scheduleCounts();
  }

  async #opened(complete: boolean): Promise<void> {
    if (!complete && (await this.#permissionsChanged())) {
      // The stream goes on behind the last id with other jobs than before.
      this.jobs.clear();
      this.feed.restart();
      void this.reload();
      return;
    }
    // The list was asked for while there was no connection.
    const { error, nextCursor } = this.listing.value;
    if (error !== null) void this.#loadPage(nextCursor);
    if (!complete) return;
    // A job that ends after the list was read, and before the stream begins, is in neither.
    this.#scheduleDetails(LIST_DELAY_MS);
    await this.#compareWithList();
  }

  async #permissionsChanged(): Promise<boolean> {
    await loadSession().catch(() => false);
    const now = currentPermissions();
    const changed = now !== null && now !== this.#permissions;
    this.#permissions = now;
    return changed;
  }

  async #loadPage(cursor: string | null): Promise<void> {
    this.#loads += 1;
    const load = this.#loads;
    this.listing.set({ ...this.listing.value, loading: true, error: null });
    try {
      const page = await listJobs({ ...queryOf(this.#filters, Date.now()), limit: PAGE, ...(cursor && { cursor }) });
      if (load !== this.#loads) return;
      this.jobs.merge(page.items);
      const last = page.items.at(-1);
      const reached = last && page.next_cursor ? Date.parse(last.created_at) : Number.NEGATIVE_INFINITY;
      this.listing.set({
        loading: false,
        error: null,
        nextCursor: page.next_cursor ?? null,
        horizon: Math.min(this.listing.value.horizon, reached),
      });
    } catch (error) {
      if (load === this.#loads) this.listing.set({ ...this.listing.value, loading: false, error });
    }
  }

  #scheduleDetails(delay: number): void {
    if (!this.#started) return;
    this.#detailTimer ??= setTimeout(() => {
      void this.#loadDetails().finally(() => {
        this.#detailTimer = null;
        if (this.#withoutDetails().length > 0) this.#scheduleDetails(LIST_INTERVAL_MS);
      });
    }, delay) as unknown as number;
  }

  /** Jobs that are known from events only, and have not been asked for in vain. */
  #withoutDetails(): LiveJob[] {
    return [...this.jobs.values()].filter((job) => !job.listed && (this.#detailAttempts.get(job.id) ?? 0) < 3);
  }

  /** Reads owner and subject of new jobs: the newest first, then all that run, then single ones. */
  async #loadDetails(): Promise<void> {
    try {
      this.jobs.merge((await listJobs({ limit: FULL_PAGE })).items);
      if (this.#withoutDetails().some((job) => !hasEnded(job.status))) await this.#listActive();
      for (const job of this.#withoutDetails().slice(0, SINGLE_JOBS)) {
        this.#detailAttempts.set(job.id, (this.#detailAttempts.get(job.id) ?? 0) + 1);
        await this.#loadJob(job.id);
      }
    } catch {
      // Asked again after the interval.
    }
  }

  async #loadJob(id: string): Promise<void> {
    try {
      this.jobs.merge([await answerOf(api.GET("/api/jobs/{job_id}", { params: { path: { job_id: id } } }))]);
    } catch (error) {
      if (!(error instanceof ApiError) || error.problem.status !== 404) throw error;
      // A job of which events have come, but which has never been in the list, may not be stored yet.
      if (this.jobs.get(id)?.listed) this.jobs.remove(id);
    }
  }

  /** Merges all queued and running jobs; returns their ids, null if there are too many to read. */
  async #listActive(): Promise<Set<string> | null> {
    const ids = new Set<string>();
    let pages = 0;
    for (const status of ["running", "queued"] satisfies JobStatus[]) {
      let cursor: string | null = null;
      do {
        if (pages >= ACTIVE_PAGES) return null;
        pages += 1;
        const page: JobList = await listJobs({ status, limit: FULL_PAGE, ...(cursor && { cursor }) });
        this.jobs.merge(page.items);
        for (const job of page.items) ids.add(job.id);
        cursor = page.next_cursor ?? null;
      } while (cursor);
    }
    return ids;
  }

  /** After events were lost: asks for the jobs that would have ended meanwhile. */
  async #compareWithList(): Promise<void> {
    try {
      const active = await this.#listActive();
      if (active === null) return;
      const doubtful = [...this.jobs.values()].filter((job) => !hasEnded(job.status) && !active.has(job.id));
      for (const job of doubtful.slice(0, SINGLE_JOBS)) await this.#loadJob(job.id);
    } catch {
      this.#scheduleDetails(LIST_INTERVAL_MS);
    }
    this.#scheduleCounts();
  }

  #scheduleCounts(): void {
    this.#countsAreStale = true;
    if (!this.#started) return;
    this.#countsTimer ??= setTimeout(() => {
      this.#countsTimer = null;
      if (this.#countsAreStale) void this.#loadCounts();
    }, COUNTS_INTERVAL_MS) as unknown as number;
  }

  async #loadCounts(): Promise<void> {
    this.#countsAreStale = false;
    const filters = this.#filters;
    const { status: _, ...query } = queryOf(filters, Date.now());
    try {
      const counts = await answerOf(api.GET("/api/jobs/counts", { params: { query } }));
      if (filters === this.#filters) this.counts.set({ ...NO_JOBS, ...counts });
    } catch {
      // The page works without them, and keeps those that it has.
    }
  }
}

interface JobList {
  items: Job[];
  next_cursor?: string | null;
}

function listJobs(query: JobListQuery & { limit: number; cursor?: string }): Promise<JobList> {
  return answerOf(api.GET("/api/jobs", { params: { query } }));
}

function currentPermissions(): string | null {
  return session.value.kind === "user" ? JSON.stringify(session.value.permissions) : null;
}
