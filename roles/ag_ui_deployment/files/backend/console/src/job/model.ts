/** The page of one job without its looks: its details, its stream, its history. */

import { answerOf, api } from "../api/client";
import { ApiError, type Problem, problemOf } from "../api/problem";
import { hasEnded, type Job } from "../api/types";
import { oncePerFrame, Store } from "../lib/store";
import { Feed } from "../live/feed";
import { mergeListed, type LiveJob } from "../live/live-job";
import { loadSession } from "../session";
import { applyToRun, EMPTY_RUN, type Run, type Step } from "./run";
import { stepOf } from "./timeline";

const HISTORY_PAGE = 200;
/** So many pages of the history are read at once. */
const HISTORY_PAGES = 5;
/** The details are up to a second behind the stream. */
const DETAILS_DELAY_MS = 1_500;

export interface History {
  readonly steps: readonly Step[];
  readonly nextCursor: string | null;
  readonly loading: boolean;
  readonly problem: Problem | null;
}

const NOTHING_LOADED: History = { steps: [], nextCursor: null, loading: true, problem: null };

export class JobModel {
  readonly run = new Store<Run>(EMPTY_RUN);
  readonly details = new Store<{ job: Job | null; problem: Problem | null }>({ job: null, problem: null });
  readonly history = new Store<History>(NOTHING_LOADED);
  readonly feed: Feed;
  readonly #id: string;
  readonly #show: () => void;
  #latest: Run = EMPTY_RUN;
  #timer: number | null = null;
  #stopped = false;

  constructor(id: string) {
    this.#id = id;
    this.#show = oncePerFrame(() => this.run.set(this.#latest));
    this.feed = new Feed({
      path: `/api/jobs/${encodeURIComponent(id)}/events`,
      onEvent: (event) => {
        this.#latest = applyToRun(this.#latest, id, event, Date.now());
        this.#show();
        if (!this.#latest.ended) return;
        // EventSource would connect again after the end.
        this.feed.end();
        this.#timer ??= setTimeout(() => this.#completed(), DETAILS_DELAY_MS) as unknown as number;
      },
      checkSession: () => this.#exists(),
    });
  }

  start(): void {
    this.#stopped = false;
    void this.loadDetails();
    void this.loadHistory();
    this.feed.start();
  }

  stop(): void {
    this.#stopped = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.feed.stop();
  }

  /** The job as the page shows it: the stream is ahead of the details, which know more. */
  shown(): LiveJob | null {
    const { job } = this.details.value;
    const live = this.run.value.job;
    return job ? mergeListed(live, job) : (live ?? null);
  }

  async loadDetails(): Promise<void> {
    try {
      const job = await answerOf(api.GET("/api/jobs/{job_id}", { params: { path: { job_id: this.#id } } }));
      this.details.set({ job, problem: null });
    } catch (error) {
      this.details.set({ ...this.details.value, problem: problemOf(error) });
    }
  }

  /** @param anew From the first event on; else the pages after those that are loaded. */
  async loadHistory(anew = false): Promise<void> {
    this.history.set({ ...this.history.value, loading: true, problem: null });
    try {
      let { steps, nextCursor } = anew ? NOTHING_LOADED : this.history.value;
      for (let page = 0; page < HISTORY_PAGES && !this.#stopped; page += 1) {
        const query = { limit: HISTORY_PAGE, ...(nextCursor && { cursor: nextCursor }) };
        const answer = await answerOf(
          api.GET("/api/jobs/{job_id}/history", { params: { path: { job_id: this.#id }, query } }),
        );
        steps = [...steps, ...answer.items.map(stepOf)];
        nextCursor = answer.next_cursor ?? null;
        this.history.set({ steps, nextCursor, loading: true, problem: null });
        if (nextCursor === null) break;
      }
      this.history.set({ steps, nextCursor, loading: false, problem: null });
    } catch (error) {
      this.history.set({ ...this.history.value, loading: false, problem: problemOf(error) });
    }
  }

  /** Reads what the stream does not have: the result, and the events as they are stored. */
  #completed(): void {
    void this.loadDetails();
    void this.loadHistory(true);
  }

  async cancel(): Promise<void> {
    const job = await answerOf(api.POST("/api/jobs/{job_id}/cancel", { params: { path: { job_id: this.#id } } }));
    this.details.set({ job, problem: null });
  }

  /** Whether the stream can be opened again: the session and the job must still be there. */
  async #exists(): Promise<boolean> {
    if (!(await loadSession())) return false;
    try {
      const job = await answerOf(api.GET("/api/jobs/{job_id}", { params: { path: { job_id: this.#id } } }));
      this.details.set({ job, problem: null });
      return !(hasEnded(job.status) && this.#latest.ended);
    } catch (error) {
      if (error instanceof ApiError && error.problem.status === 404) {
        this.details.set({ job: null, problem: error.problem });
        return false;
      }
      throw error;
    }
  }
}
