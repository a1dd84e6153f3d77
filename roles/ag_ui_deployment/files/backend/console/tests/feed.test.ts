import { describe, expect, it } from "vitest";
import type { JsonObject } from "../src/lib/untrusted";
import { Feed, type FeedOptions, type Source } from "../src/live/feed";

class FakeSource implements Source {
  readyState = 0;
  onopen: (() => void) | null = null;
  onerror: (() => void) | null = null;
  readonly listeners = new Map<string, (event: MessageEvent<string>) => void>();

  constructor(readonly url: string) {}

  addEventListener(type: string, listener: (event: MessageEvent<string>) => void): void {
    this.listeners.set(type, listener);
  }

  close(): void {
    this.readyState = 2;
  }

  open(): void {
    this.readyState = 1;
    this.onopen?.();
  }

  send(type: string, lastEventId: string, data = JSON.stringify({ type })): void {
    this.listeners.get(type)?.({ data, lastEventId } as MessageEvent<string>);
  }

  /** The connection breaks; the browser connects again by itself. */
  lose(): void {
    this.readyState = 0;
    this.onerror?.();
  }

  /** The server answers with an error; the browser gives up. */
  refuse(): void {
    this.readyState = 2;
    this.onerror?.();
  }
}

function connected(options: Partial<FeedOptions> = {}) {
  const sources: FakeSource[] = [];
  const events: JsonObject[] = [];
  const opened: boolean[] = [];
  const timers: { run: () => void; delay: number }[] = [];
  const clock = { now: 1_000 };
  const network = new EventTarget();
  const feed = new Feed({
    path: "/events",
    onEvent: (event) => events.push(event),
    onOpen: (complete) => opened.push(complete),
    checkSession: () => Promise.resolve(true),
    createSource: (url) => {
      const source = new FakeSource(url);
      sources.push(source);
      return source;
    },
    now: () => clock.now,
    random: () => 0,
    network,
    setTimer: (run, delay) => timers.push({ run, delay }),
    clearTimer: () => undefined,
    ...options,
  });
  feed.start();
  return { feed, sources, events, opened, timers, clock, network, last: () => sources.at(-1)! };
}

const settled = (): Promise<void> => new Promise((resolve) => setTimeout(resolve));

describe("a feed", () => {
  it("passes on events and says that it is connected", () => {
    const { feed, events, opened, last } = connected();
    expect(feed.state.value.kind).toBe("connecting");
    last().open();
    last().send("RUN_STARTED", "1-0");
    expect(feed.state.value).toEqual({ kind: "connected", resumed: null });
    expect(opened).toEqual([true]);
    expect(events).toEqual([{ type: "RUN_STARTED" }]);
  });

  it("says since when it reconnects, and that it has resumed", () => {
    const { feed, clock, opened, last } = connected();
    last().open();
    last().send("RAW", "5-0");
    clock.now = 2_000;
    last().lose();
    clock.now = 3_000;
    last().lose();
    expect(feed.state.value).toEqual({ kind: "reconnecting", since: 2_000 });
    clock.now = 4_000;
    last().open();
    expect(feed.state.value).toEqual({ kind: "connected", resumed: { lostAt: 2_000, at: 4_000 } });
    expect(opened).toEqual([true, false]);
  });

  it("does not claim to have resumed without an id: then the state is sent anew", () => {
    const { feed, opened, last } = connected();
    last().open();
    last().lose();
    last().open();
    expect(feed.state.value).toEqual({ kind: "connected", resumed: null });
    expect(opened).toEqual([true, true]);
  });

  it("opens another connection behind the last id after the server has refused", async () => {
    const { sources, timers, last } = connected();
    last().open();
    last().send("RAW", "5-0");
    last().send("RAW", "7-3");
    last().refuse();
    await settled();
    expect(timers.map(({ delay }) => delay)).toEqual([1_000]);
    timers[0]!.run();
    last().refuse();
    await settled();
    expect(timers.map(({ delay }) => delay)).toEqual([1_000, 2_000]);
    timers[1]!.run();
    expect(sources.map(({ url }) => url)).toEqual(["/events", "/events?last_event_id=7-3", "/events?last_event_id=7-3"]);
  });

  it("ends when the session has ended", async () => {
    const { feed, sources, last } = connected({ checkSession: () => Promise.resolve(false) });
    last().refuse();
    await settled();
    expect(feed.state.value.kind).toBe("ended");
    expect(sources.length).toBe(1);
  });

  it("tries again if it cannot be known whether the session has ended", async () => {
    const { feed, timers, last } = connected({ checkSession: () => Promise.reject(new TypeError("no network")) });
    last().refuse();
    await settled();
    expect(feed.state.value.kind).toBe("reconnecting");
    expect(timers.length).toBe(1);
  });

  it("ignores what a closed connection still says", () => {
    const { feed, events, sources } = connected();
    sources[0]!.open();
    feed.stop();
    feed.start();
    sources[0]!.send("RAW", "1-0");
    sources[0]!.open();
    expect(events).toEqual([]);
    expect(feed.state.value.kind).toBe("connecting");
  });

  it("goes on behind the last event after a pause, and from the beginning after restart()", () => {
    const { feed, sources, last } = connected();
    last().open();
    last().send("RAW", "5-0");
    feed.stop();
    expect(feed.state.value.kind).toBe("idle");
    feed.start();
    expect(last().url).toBe("/events?last_event_id=5-0");
    feed.restart();
    expect(last().url).toBe("/events");
    expect(sources.slice(0, -1).every(({ readyState }) => readyState === 2)).toBe(true);
  });

  it("does not wait for the browser when the network is away and comes back", () => {
    const { feed, sources, network, last } = connected();
    last().open();
    last().send("RAW", "5-0");
    network.dispatchEvent(new Event("offline"));
    expect(feed.state.value.kind).toBe("reconnecting");
    network.dispatchEvent(new Event("online"));
    expect(sources.length).toBe(2);
    last().open();
    expect(feed.state.value.kind).toBe("connected");
  });

  it("survives data that is no JSON", () => {
    const { events, last } = connected();
    last().open();
    last().send("RAW", "5-0", "{");
    expect(events).toEqual([{}]);
  });
});
