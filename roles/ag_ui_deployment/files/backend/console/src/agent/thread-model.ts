/** One conversation without its looks: its messages, and the run that goes on or was the last. */

import { answerOf, api } from "../api/client";
import { ApiError, type Problem, problemOf } from "../api/problem";
import type { RunInput, Thread, ThreadSummary } from "../api/types";
import { oncePerFrame, Store } from "../lib/store";
import type { JsonObject } from "../lib/untrusted";
import { Feed, type Source } from "../live/feed";
import { loadSession } from "../session";
import { askedAgain, forModel, idOf } from "./messages";
import { ResponseSource } from "./response-source";
import { type AgentRun, applyToAgentRun, newRun } from "./agent-run";

const PAGE = 500;
/** More messages than the backend accepts in a run are not read. */
const PAGES = 4;

export interface ThreadState {
  /** Null until it is known. */
  readonly summary: ThreadSummary | null;
  /** The messages before the output of `run`. */
  readonly messages: readonly JsonObject[];
  readonly run: AgentRun | null;
  readonly loading: boolean;
  readonly problem: Problem | null;
  /** Whether there are earlier messages, which were not read. */
  readonly hasEarlier: boolean;
}

export interface ThreadOptions {
  /** Null for a conversation that does not exist yet. */
  readonly id: string | null;
  /** Null for the caller. */
  readonly owner: string | null;
  /** A run has begun, here or elsewhere, or has ended. */
  onChange(): void;
}

/** A request that may have arrived although no answer did: sent again with the same ids, it begins one run. */
interface Attempt {
  readonly key: string;
  readonly runId: string;
  readonly messages: readonly JsonObject[];
}

export class ThreadModel {
  readonly id: string;
  readonly owner: string | null;
  readonly state: Store<ThreadState>;
  /** The stream of the run. */
  readonly feed = new Store<Feed | null>(null);
  readonly #onChange: () => void;
  #exists: boolean;
  #attempt: Attempt | null = null;
  #closed = true;

  constructor({ id, owner, onChange }: ThreadOptions) {
    this.id = id ?? crypto.randomUUID();
    this.owner = owner;
    this.#exists = id !== null;
    this.#onChange = onChange;
    this.state = new Store<ThreadState>({
      summary: null,
      messages: [],
      run: null,
      loading: this.#exists,
      problem: null,
      hasEarlier: false,
    });
  }

  /** Whether the backend has this conversation. */
  get exists(): boolean {
    return this.#exists;
  }

  get isClosed(): boolean {
    return this.#closed;
  }

  open(): void {
    this.#closed = false;
    if (this.#exists) void this.load();
  }

  /** Stops following; a run goes on. */
  close(): void {
    this.#closed = true;
    this.feed.value?.stop();
  }

  async load(): Promise<void> {
    this.#change({ loading: true, problem: null });
    try {
      let thread = await this.#read({ limit: PAGE });
      const summary = thread;
      let messages = thread.messages;
      for (let page = 1; page < PAGES && thread.next_cursor !== null; page += 1) {
        thread = await this.#read({ limit: PAGE, cursor: thread.next_cursor });
        messages = [...thread.messages, ...messages];
      }
      if (this.#closed) return;
      const { run } = this.state.value;
      const last = summary.runs[0];
      const known = run !== null && run.id === last?.id;
      this.#change({
        summary,
        messages: known ? without(messages, run) : messages,
        loading: false,
        hasEarlier: thread.next_cursor !== null,
      });
      // The log of a run has more than its messages: times, and why it failed.
      if (last && (!known || this.feed.value?.state.value.kind === "idle")) this.#follow(newRun(last.id), { isOver: last.status !== "running" });
    } catch (error) {
      this.#change({ loading: false, problem: problemOf(error) });
    }
  }

  /** Looks whether something has happened elsewhere: another tab has begun a run, or changed the title. */
  async refresh(): Promise<void> {
    if (!this.#exists || this.#closed || this.#isRunning()) return;
    try {
      const thread = await this.#read({ limit: 1 });
      this.#change({ summary: thread });
      if (thread.runs[0]?.id !== this.state.value.run?.id) await this.load();
    } catch {
      // What is shown stays; the next request says what is wrong.
    }
  }

  /**
   * Sends a message; the answer is streamed.
   *
   * @throws {ApiError} The backend has refused the run.
   */
  async send(text: string, workspace: string): Promise<void> {
    const question = { id: crypto.randomUUID(), role: "user", content: text };
    await this.#begin({ key: `send ${text}`, runId: crypto.randomUUID(), messages: [...this.#all(), question] }, workspace);
  }

  /** Asks the last question again. The present answer is kept as an earlier one. */
  async regenerate(workspace: string): Promise<void> {
    const messages = askedAgain(this.#all());
    if (messages) await this.#begin({ key: "again", runId: crypto.randomUUID(), messages }, workspace);
  }

  /** Cancels the run; its stream says when it has ended. */
  async stop(): Promise<void> {
    const { run } = this.state.value;
    if (run) await answerOf(api.POST("/agent/runs/{run_id}/cancel", { params: this.#params({ run_id: run.id }) }));
  }

  async rename(title: string): Promise<void> {
    const params = this.#params({ thread_id: this.id });
    this.#change({ summary: await answerOf(api.PUT("/agent/threads/{thread_id}/title", { params, body: { title } })) });
    this.#onChange();
  }

  async delete(): Promise<void> {
    await answerOf(api.DELETE("/agent/threads/{thread_id}", { params: this.#params({ thread_id: this.id }) }));
    this.close();
    this.#onChange();
  }

  async #begin(wanted: Attempt, workspace: string): Promise<void> {
    const attempt = this.#attempt?.key === wanted.key ? this.#attempt : wanted;
    this.#attempt = attempt;
    const { runId, messages } = attempt;
    const body = { protocolVersion: "1.0", threadId: this.id, runId, messages: forModel(messages) as RunInput["messages"], forwardedProps: { workspace } };
    let stream: ReadableStream<Uint8Array> | null = null;
    try {
      stream = await answerOf(api.POST("/agent", { body, parseAs: "stream" }));
    } catch (error) {
      const problem = problemOf(error);
      const mayHaveArrived = problem.status === 0 || problem.status >= 500;
      if (!mayHaveArrived) this.#attempt = null;
      if (problem.slug === "thread-busy") void this.load();
      // An earlier attempt has begun this run.
      if (problem.slug !== "run-exists") throw error;
    }
    this.#attempt = null;
    this.#exists = true;
    if (this.#closed) {
      await stream?.cancel();
      return;
    }
    this.#onChange();
    this.#change({ messages });
    this.#follow(newRun(runId), { stream });
    void this.#loadSummary();
  }

  /** @param isOver What it has written is among the messages, and is shown until all of its events are here. */
  #follow(run: AgentRun, { stream = null, isOver = false }: { stream?: ReadableStream<Uint8Array> | null; isOver?: boolean }): void {
    this.feed.value?.stop();
    let latest = run;
    const isCurrent = (): boolean => this.feed.value === feed;
    const show = oncePerFrame(() => isCurrent() && this.#change({ run: latest }));
    const owner = this.owner === null ? "" : `?owner=${encodeURIComponent(this.owner)}`;
    const feed = new Feed({
      path: `/agent/runs/${encodeURIComponent(run.id)}/events${owner}`,
      onOpen: (complete) => {
        if (complete) latest = newRun(run.id);
      },
      onEvent: (event) => {
        latest = applyToAgentRun(latest, event, Date.now());
        if (latest.status === "running") {
          if (!isOver) show();
          return;
        }
        // EventSource would connect again after the end.
        feed.end();
        if (isOver) this.#change({ messages: without(this.state.value.messages, latest) });
        this.#change({ run: latest });
        if (!isOver) this.#onChange();
      },
      checkSession: () => this.#canFollow(run.id),
      createSource: (url) => {
        const first = stream;
        stream = null;
        return first ? new ResponseSource(first) : (new EventSource(url) as Source);
      },
    });
    this.feed.set(feed);
    if (!isOver) this.#change({ run });
    feed.start();
  }

  /** Whether the stream of a run can be opened again: the session and the run must still be there. */
  async #canFollow(runId: string): Promise<boolean> {
    if (!(await loadSession())) return false;
    try {
      await answerOf(api.GET("/agent/runs/{run_id}", { params: this.#params({ run_id: runId }) }));
      return true;
    } catch (error) {
      if (!(error instanceof ApiError) || error.problem.status !== 404) throw error;
      this.#change({ run: null, problem: error.problem });
      return false;
    }
  }

  async #loadSummary(): Promise<void> {
    if (this.state.value.summary) return;
    try {
      this.#change({ summary: await this.#read({ limit: 1 }) });
    } catch {
      // Until the next time that it is read, the page shows no title.
    }
  }

  async #read(query: { limit: number; cursor?: string }): Promise<Thread> {
    const params = this.#params({ thread_id: this.id });
    return answerOf(api.GET("/agent/threads/{thread_id}", { params: { ...params, query: { ...params.query, ...query } } }));
  }

  #params<P>(path: P): { path: P; query: { owner?: string } } {
    return { path, query: this.owner === null ? {} : { owner: this.owner } };
  }

  #isRunning(): boolean {
    return this.state.value.run?.status === "running";
  }

  /** The whole conversation. */
  #all(): JsonObject[] {
    const { messages, run } = this.state.value;
    return run ? [...messages, ...run.messages.values()] : [...messages];
  }

  #change(changed: Partial<ThreadState>): void {
    this.state.set({ ...this.state.value, ...changed });
  }
}

function without(messages: readonly JsonObject[], run: AgentRun): readonly JsonObject[] {
  return messages.filter((message) => !run.messages.has(idOf(message)));
}
