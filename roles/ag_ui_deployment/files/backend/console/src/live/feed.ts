/** A stream of AG-UI events by EventSource, which goes on after interruptions where it was. */

import { Store } from "../lib/store";
import { asObject, type JsonObject, parseJson } from "../lib/untrusted";

/** EventSource calls only listeners for the name of an event. */
export const EVENT_TYPES = [
  "RUN_STARTED",
  "RUN_FINISHED",
  "RUN_ERROR",
  "ACTIVITY_SNAPSHOT",
  "ACTIVITY_DELTA",
  "CUSTOM",
  "RAW",
  "TOOL_CALL_START",
  "TOOL_CALL_ARGS",
  "TOOL_CALL_END",
  "TOOL_CALL_RESULT",
  "TEXT_MESSAGE_START",
  "TEXT_MESSAGE_CONTENT",
  "TEXT_MESSAGE_END",
  "REASONING_MESSAGE_START",
  "REASONING_MESSAGE_CONTENT",
] as const;

/** Times are in milliseconds since 1970. */
export type FeedState =
  | { readonly kind: "idle" }
  | { readonly kind: "connecting" }
  /** `resumed`: since when the connection was lost before it went on without a loss of events. */
  | { readonly kind: "connected"; readonly resumed: { readonly lostAt: number; readonly at: number } | null }
  | { readonly kind: "reconnecting"; readonly since: number }
  | { readonly kind: "ended" };

/** What this module uses of an EventSource. */
export interface Source {
  readonly readyState: number;
  addEventListener(type: string, listener: (event: MessageEvent<string>) => void): void;
  onopen: (() => void) | null;
  onerror: (() => void) | null;
  close(): void;
}

export interface FeedOptions {
  readonly path: string;
  onEvent(event: JsonObject): void;
  /**
   * A connection is open. `complete`: it began without an id, so the current state of everything that
   * runs follows, and what ended meanwhile has to be asked for.
   */
  onOpen?(complete: boolean): void;
  /** Whether the session still exists; renews its cookies if need be. Rejects if that is unknown. */
  checkSession(): Promise<boolean>;
  readonly createSource?: (url: string) => Source;
  readonly now?: () => number;
  readonly random?: () => number;
  readonly network?: EventTarget;
  readonly setTimer?: (run: () => void, milliseconds: number) => number;
  readonly clearTimer?: (timer: number) => void;
}

const CLOSED = 2;
const RETRY_MS = 1_000;
const RETRY_MAX_MS = 30_000;

export class Feed {
  readonly state = new Store<FeedState>({ kind: "idle" });
  readonly #options: FeedOptions;
  readonly #now: () => number;
  #source: Source | null = null;
  #timer: number | null = null;
  #lastId = "";
  #failures = 0;
  /** Since when the connection is lost; null while there is one, and before the first. */
  #lostAt: number | null = null;
  /** Counts attempts, so that the answer to an abandoned one is ignored. */
  #attempt = 0;

  readonly #offline = (): void => this.#lose();
  readonly #online = (): void => {
    if (this.state.value.kind === "reconnecting") this.#open();
  };

  constructor(options: FeedOptions) {
    this.#options = options;
    this.#now = options.now ?? Date.now;
  }

  /** Connects. After stop() the stream goes on behind the last event. */
  start(): void {
    if (this.#isStarted()) return;
    const network = this.#network();
    network?.addEventListener("offline", this.#offline);
    network?.addEventListener("online", this.#online);
    this.state.set({ kind: "connecting" });
    this.#open();
  }

  stop(): void {
    this.#leave({ kind: "idle" });
  }

  /** Begins anew without an id, as after a change of the caller's permissions. */
  restart(): void {
    this.#leave({ kind: "idle" });
    this.#lastId = "";
    this.start();
  }

  /** Ends for good: there is nothing more to come. */
  end(): void {
    this.#leave({ kind: "ended" });
  }

  #isStarted(): boolean {
    const { kind } = this.state.value;
    return kind !== "idle" && kind !== "ended";
  }

  #network(): EventTarget | undefined {
    return this.#options.network ?? globalThis.window;
  }

  #leave(state: FeedState): void {
    const network = this.#network();
    network?.removeEventListener("offline", this.#offline);
    network?.removeEventListener("online", this.#online);
    this.#close();
    this.#lostAt = null;
    this.#failures = 0;
    this.state.set(state);
  }

  #close(): void {
    this.#attempt += 1;
    if (this.#timer !== null) (this.#options.clearTimer ?? clearTimeout)(this.#timer);
    this.#timer = null;
    this.#source?.close();
    this.#source = null;
  }

  #open(): void {
    this.#close();
    const { path } = this.#options;
    const separator = path.includes("?") ? "&" : "?";
    const url = this.#lastId ? `${path}${separator}last_event_id=${encodeURIComponent(this.#lastId)}` : path;
    const source = (this.#options.createSource ?? ((address) => new EventSource(address) as Source))(url);
    this.#source = source;
    const current = (): boolean => this.#source === source;
    source.onopen = () => current() && this.#opened();
    source.onerror = () => current() && this.#failed(source);
    for (const type of EVENT_TYPES) {
      source.addEventListener(type, (message) => {
        if (!current()) return;
        this.#options.onEvent(asObject(parseJson(message.data)));
        // After the event is applied: if that fails, the event comes again.
        if (message.lastEventId) this.#lastId = message.lastEventId;
      });
    }
  }

  #opened(): void {
    const complete = this.#lastId === "";
    const lostAt = this.#lostAt;
    this.#lostAt = null;
    this.#failures = 0;
    this.state.set({ kind: "connected", resumed: lostAt === null || complete ? null : { lostAt, at: this.#now() } });
    this.#options.onOpen?.(complete);
  }

  #failed(source: Source): void {
    this.#markLost();
    // Otherwise the browser itself connects again, with the last id.
    if (source.readyState === CLOSED) void this.#retry();
  }

  #lose(): void {
    if (!this.#isStarted()) return;
    this.#close();
    this.#markLost();
    // In case the browser never says that it is online again.
    this.#wait(RETRY_MAX_MS);
  }

  #markLost(): void {
    this.#lostAt ??= this.#now();
    this.state.set({ kind: "reconnecting", since: this.#lostAt });
  }

  /** The server has refused the connection: with a session that ended, or because it is busy. */
  async #retry(): Promise<void> {
    this.#close();
    const attempt = this.#attempt;
    const exists = await this.#options.checkSession().catch(() => true);
    if (attempt !== this.#attempt) return;
    if (!exists) {
      this.end();
      return;
    }
    const delay = Math.min(RETRY_MAX_MS, RETRY_MS * 2 ** this.#failures);
    this.#failures += 1;
    this.#wait(delay * (1 + (this.#options.random ?? Math.random)()));
  }

  #wait(milliseconds: number): void {
    const setTimer = this.#options.setTimer ?? ((run, delay) => setTimeout(run, delay) as unknown as number);
    this.#timer = setTimer(() => this.#open(), milliseconds);
  }
}
