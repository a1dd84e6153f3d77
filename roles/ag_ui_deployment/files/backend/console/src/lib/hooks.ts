import { useCallback, useEffect, useLayoutEffect, useReducer, useRef, useState } from "preact/hooks";
import { problemOf, type Problem } from "../api/problem";
import type { Readable } from "./store";
import { Store } from "./store";

/** Returns the value of a store, and renders the component again when it changes. */
export function useStore<T>(store: Readable<T>): T {
  const [, render] = useReducer<number, void>((count) => count + 1, 0);
  const shown = useRef(store.value);
  shown.current = store.value;
  useLayoutEffect(() => {
    const check = (): void => {
      if (!Object.is(shown.current, store.value)) render();
    };
    check();
    return store.subscribe(check);
  }, [store]);
  return store.value;
}

const seconds = new Store(Date.now());
let ticking = 0;
let ticker: number | undefined;

/** The time, once a second, for ages and durations. Pass false where it stands still. */
export function useNow(active = true): number {
  const [now, setNow] = useState(Date.now);
  useEffect(() => {
    if (!active) return undefined;
    ticking += 1;
    ticker ??= setInterval(() => seconds.set(Date.now()), 1000) as unknown as number;
    const unsubscribe = seconds.subscribe(() => setNow(seconds.value));
    return () => {
      unsubscribe();
      ticking -= 1;
      if (ticking === 0) {
        clearInterval(ticker);
        ticker = undefined;
      }
    };
  }, [active]);
  return now;
}

export interface Loaded<T> {
  readonly data: T | null;
  readonly problem: Problem | null;
  readonly loading: boolean;
  reload(): Promise<void>;
}

/** Loads when the component appears and when `key` changes. Earlier data stay until newer ones are there. */
export function useLoaded<T>(load: () => Promise<T>, key = ""): Loaded<T> {
  const [state, setState] = useState<{ key: string; data: T | null; problem: Problem | null; loading: boolean }>({
    key,
    data: null,
    problem: null,
    loading: true,
  });
  const latest = useRef(load);
  latest.current = load;
  const run = useRef(0);
  const reload = useCallback(async () => {
    run.current += 1;
    const own = run.current;
    setState((before) => ({ ...before, loading: true }));
    try {
      const data = await latest.current();
      if (own === run.current) setState({ key, data, problem: null, loading: false });
    } catch (error) {
      const problem = problemOf(error);
      if (own === run.current) setState((before) => ({ ...before, key, problem, loading: false }));
    }
  }, [key]);
  useEffect(() => {
    void reload();
    return () => {
      run.current += 1;
    };
  }, [reload]);
  return { ...state, data: state.key === key ? state.data : null, reload };
}

interface Page<T> {
  readonly items: readonly T[];
  readonly next_cursor?: string | null;
}

export interface Pages<T> {
  /** What is loaded so far; null until the first page is there. */
  readonly items: readonly T[] | null;
  readonly hasMore: boolean;
  readonly problem: Problem | null;
  readonly loading: boolean;
  /** The loading of further pages. */
  readonly more: Action;
  loadMore(): void;
  reload(): Promise<void>;
}

/** Loads a list page by page, from the beginning when `key` changes. An empty cursor asks for the first page. */
export function usePages<T>(load: (cursor: string) => Promise<Page<T>>, key = ""): Pages<T> {
  const first = useLoaded(() => load(""), key);
  const more = useAction();
  const [later, setLater] = useState<{ first: Page<T> | null; items: readonly T[]; next: string | null } | null>(null);
  // Further pages belong to the first page that they follow.
  const rest = later !== null && later.first === first.data ? later : null;
  const next = rest ? rest.next : (first.data?.next_cursor ?? null);
  const loadMore = (): void => {
    if (next === null) return;
    void more.run(async () => {
      const page = await load(next);
      setLater({ first: first.data, items: [...(rest?.items ?? []), ...page.items], next: page.next_cursor ?? null });
    });
  };
  return {
    items: first.data && [...first.data.items, ...(rest?.items ?? [])],
    hasMore: next !== null,
    problem: first.problem,
    loading: first.loading,
    more,
    loadMore,
    reload: first.reload,
  };
}

export interface Action {
  readonly busy: boolean;
  readonly problem: Problem | null;
  run(action: () => Promise<void>): Promise<boolean>;
  clear(): void;
}

/** Runs what a button or form does: one at a time, and keeps its problem. */
export function useAction(): Action {
  const [state, setState] = useState<{ busy: boolean; problem: Problem | null }>({ busy: false, problem: null });
  const busy = useRef(false);
  const run = useCallback(async (action: () => Promise<void>): Promise<boolean> => {
    if (busy.current) return false;
    busy.current = true;
    setState({ busy: true, problem: null });
    try {
      await action();
      setState({ busy: false, problem: null });
      return true;
    } catch (error) {
      setState({ busy: false, problem: problemOf(error) });
      return false;
    } finally {
      busy.current = false;
    }
  }, []);
  const clear = useCallback(() => setState({ busy: false, problem: null }), []);
  return { ...state, run, clear };
}

/** Whether a media query holds. */
export function useMedia(query: string): boolean {
  const [matches, setMatches] = useState(() => window.matchMedia(query).matches);
  useEffect(() => {
    const media = window.matchMedia(query);
    const update = (): void => setMatches(media.matches);
    update();
    media.addEventListener("change", update);
    return () => media.removeEventListener("change", update);
  }, [query]);
  return matches;
}
