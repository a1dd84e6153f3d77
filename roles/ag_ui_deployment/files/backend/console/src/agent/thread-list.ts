/** The conversations, the latest first. */

import { answerOf, api } from "../api/client";
import { type Problem, problemOf } from "../api/problem";
import type { ThreadSummary } from "../api/types";
import { Store } from "../lib/store";

export interface ThreadListState {
  readonly items: readonly ThreadSummary[];
  readonly nextCursor: string | null;
  readonly loading: boolean;
  readonly problem: Problem | null;
}

export class ThreadList {
  readonly state = new Store<ThreadListState>({ items: [], nextCursor: null, loading: true, problem: null });
  /** Counts requests, so that the answer to an earlier one is ignored. */
  #request = 0;

  /** Reads the first page again. */
  async reload(): Promise<void> {
    await this.#read([], null);
  }

  async more(): Promise<void> {
    const { items, nextCursor } = this.state.value;
    await this.#read(items, nextCursor);
  }

  async #read(before: readonly ThreadSummary[], cursor: string | null): Promise<void> {
    this.#request += 1;
    const request = this.#request;
    this.state.set({ ...this.state.value, loading: true, problem: null });
    try {
      const query = cursor === null ? {} : { cursor };
      const page = await answerOf(api.GET("/agent/threads", { params: { query } }));
      if (request !== this.#request) return;
      this.state.set({ items: joined(before, page.items), nextCursor: page.next_cursor ?? null, loading: false, problem: null });
    } catch (error) {
      if (request === this.#request) this.state.set({ ...this.state.value, loading: false, problem: problemOf(error) });
    }
  }
}

/** A conversation that has moved between two requests is in both pages. */
function joined(before: readonly ThreadSummary[], page: readonly ThreadSummary[]): ThreadSummary[] {
  return [...new Map([...before, ...page].map((item) => [`${item.owner_id} ${item.id}`, item])).values()];
}
