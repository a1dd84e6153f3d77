// @vitest-environment happy-dom

import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { turnsOf, withOutput } from "../src/agent/messages";
import type { ThreadModel } from "../src/agent/thread-model";
import type { JsonObject } from "../src/lib/untrusted";
import { framesOf, runError, runFinished, runStarted, textDelta, textStart } from "./agent-events";

const ME = { id: "u1", email: "alice@shield.test", role: "admin" };

interface Asked {
  readonly line: string;
  readonly body: JsonObject;
}

type Handler = (request: Asked) => Response | undefined;

let handlers: Handler[];
let asked: Asked[];
let streams: FakeStream[];
let changes: number;
let models: ThreadModel[];

class FakeStream extends EventTarget {
  readyState = 1;
  onopen: (() => void) | null = null;
  onerror: (() => void) | null = null;

  constructor(readonly url: string) {
    super();
    streams.push(this);
    queueMicrotask(() => this.onopen?.());
  }

  close(): void {
    this.readyState = 2;
  }

  /** Sends events that have the ids `from`-0 and so on; none if it is null. */
  send(events: readonly JsonObject[], from: number | null): void {
    for (const [index, event] of events.entries()) {
      const lastEventId = from === null ? "" : `${from + index}-0`;
      this.dispatchEvent(Object.assign(new Event(event["type"] as string), { data: JSON.stringify(event), lastEventId }));
    }
  }

  refuse(): void {
    this.readyState = 2;
    this.onerror?.();
  }
}

/** The stream of an answer to POST /agent. */
function answering() {
  let controller!: ReadableStreamDefaultController<Uint8Array>;
  const body = new ReadableStream<Uint8Array>({
    start: (given) => {
      controller = given;
    },
  });
  const encoder = new TextEncoder();
  return {
    response: new Response(body, { headers: { "content-type": "text/event-stream" } }),
    send: (events: readonly JsonObject[], from: number) => controller.enqueue(encoder.encode(framesOf(events, from))),
    cut: () => controller.error(new TypeError("network error")),
  };
}

const problem = (status: number, slug: string): Response =>
  Response.json({ type: `urn:shield-ag-ui:problem:${slug}`, title: `Title of ${slug}`, status, detail: `Detail of ${slug}.` }, { status });

const question = (id: string): JsonObject => ({ id, role: "user", content: `question ${id}` });
const answer = (id: string, content = `answer ${id}`): JsonObject => ({ id, role: "assistant", content });
const run = (id: string, status: string): JsonObject => ({ id, thread_id: "t", workspace: "default", owner_id: ME.id, status, error: null, usage: null, started_at: "2026-11-30T10:00:00Z", ended_at: null });

function thread(messages: readonly JsonObject[], runs: readonly JsonObject[], nextCursor: string | null = null): JsonObject {
  const times = { created_at: "2026-11-30T10:00:00Z", updated_at: "2026-11-30T10:00:00Z" };
  return { id: "t", owner_id: ME.id, workspace: "default", title: "Sharks", ...times, messages, runs, next_cursor: nextCursor, earlier: null, active_run_id: null };
}

/** Answers a request by its method and path, without the query. */
const on =
  (line: string, answered: (request: Asked) => Response): Handler =>
  (request) =>
    request.line.split("?")[0] === line ? answered(request) : undefined;

async function modelOf(id: string | null, owner: string | null = null): Promise<ThreadModel> {
  const { ThreadModel: Model } = await import("../src/agent/thread-model");
  const model = new Model({ id, owner, onChange: () => (changes += 1) });
  models.push(model);
  model.open();
  return model;
}

const texts = ({ state }: ThreadModel): string[] => {
  const { messages, run: current } = state.value;
  const turns = withOutput(turnsOf(messages), [...(current?.messages.values() ?? [])]);
  return turns.flatMap((turn) => [turn.question ?? "", ...turn.parts.map((part) => (part.kind === "call" ? part.call.name : part.text))]);
};
const shows = (model: ThreadModel, expected: string[]): Promise<void> => vi.waitFor(() => expect(texts(model)).toEqual(expected));
const status = (model: ThreadModel): string | undefined => model.state.value.run?.status;
const lines = (start: string): string[] => asked.map(({ line }) => line).filter((line) => line.startsWith(start));

beforeEach(() => {
  handlers = [];
  asked = [];
  streams = [];
  changes = 0;
  models = [];
  vi.stubGlobal("EventSource", FakeStream);
  vi.stubGlobal("fetch", async (request: Request) => {
    const url = new URL(request.url);
    const text = await request.text();
    const entry: Asked = { line: `${request.method} ${url.pathname}${url.search}`, body: text ? (JSON.parse(text) as JsonObject) : {} };
    asked.push(entry);
    const common = [
      on("GET /auth/me", () => Response.json(ME)),
      on("GET /api/permissions", () => Response.json({ matrix: {}, tools: {}, everywhere: false, workspaces: [] })),
    ];
    for (const handler of [...handlers, ...common]) {
      const response = handler(entry);
      if (response) return response;
    }
    return problem(404, "not-found");
  });
});

afterEach(() => {
  for (const model of models) model.close();
  vi.unstubAllGlobals();
});

describe("a conversation", () => {
  it("shows a run from the beginning that goes on when the page is opened", async () => {
    handlers.push(on("GET /agent/threads/t", () => Response.json(thread([question("q1"), answer("a1"), question("q2")], [run("r2", "running"), run("r1", "finished")]))));
    const model = await modelOf("t");
    await shows(model, ["question q1", "answer a1", "question q2"]);
    await vi.waitFor(() => expect(streams.map(({ url }) => url)).toEqual(["/agent/runs/r2/events"]));
    streams[0]!.send([runStarted("r2"), textStart("a2"), textDelta("a2", "Sharks ")], 1);
    await shows(model, ["question q1", "answer a1", "question q2", "Sharks "]);
    expect(status(model)).toBe("running");
    streams[0]!.send([textDelta("a2", "swim."), runFinished("r2")], 4);
    await shows(model, ["question q1", "answer a1", "question q2", "Sharks swim."]);
    expect(status(model)).toBe("finished");
    expect(streams[0]!.readyState).toBe(2);
    expect(changes).toBe(1);
  });

  it("goes on behind the last event when the connection is lost", async () => {
    handlers.push(
      on("GET /agent/threads/t", () => Response.json(thread([question("q1")], [run("r1", "running")]))),
      on("GET /agent/runs/r1", () => Response.json(run("r1", "running"))),
    );
    const model = await modelOf("t");
    await vi.waitFor(() => expect(streams.length).toBe(1));
    streams[0]!.send([runStarted("r1"), textStart("a1"), textDelta("a1", "one ")], 1);
    await shows(model, ["question q1", "one "]);
    streams[0]!.refuse();
    await vi.waitFor(() => expect(streams.length).toBe(2), 4_000);
    expect(streams[1]!.url).toBe("/agent/runs/r1/events?last_event_id=3-0");
    streams[1]!.send([runStarted("r1"), textStart("a1")], null);
    streams[1]!.send([textDelta("a1", "two"), runFinished("r1")], 4);
    await shows(model, ["question q1", "one two"]);
  });

  it("begins anew when the connection was lost before the first id", async () => {
    handlers.push(on("GET /agent/threads/t", () => Response.json(thread([question("q1")], [run("r1", "running")]))));
    const model = await modelOf("t");
    await vi.waitFor(() => expect(streams.length).toBe(1));
    streams[0]!.send([textStart("a1"), textDelta("a1", "one ")], null);
    // The browser itself connects again.
    streams[0]!.onopen?.();
    streams[0]!.send([runStarted("r1"), textStart("a1"), textDelta("a1", "one "), textDelta("a1", "two"), runFinished("r1")], 1);
    await shows(model, ["question q1", "one two"]);
  });

  it("says why its last run failed, and shows the answer once", async () => {
    const stored = [question("q1"), answer("a1", "half an")];
    handlers.push(on("GET /agent/threads/t", () => Response.json(thread(stored, [run("r1", "failed")]))));
    const model = await modelOf("t");
    await vi.waitFor(() => expect(streams.length).toBe(1));
    expect(texts(model)).toEqual(["question q1", "half an"]);
    streams[0]!.send([runStarted("r1"), textStart("a1"), textDelta("a1", "half ")], 1);
    await new Promise((resolve) => requestAnimationFrame(resolve));
    expect(texts(model)).toEqual(["question q1", "half an"]);
    streams[0]!.send([textDelta("a1", "an"), runError("It broke off.", true)], 4);
    expect(texts(model)).toEqual(["question q1", "half an"]);
    expect(model.state.value.run?.failure).toEqual({ message: "It broke off.", retryable: true });
    // Nothing has happened now.
    expect(changes).toBe(0);
  });

  it("is read whole, in pages", async () => {
    handlers.push(
      on("GET /agent/threads/t", ({ line }) => Response.json(line.includes("cursor=9") ? thread([question("q1")], []) : thread([question("q2")], [], "9"))),
    );
    const model = await modelOf("t");
    await shows(model, ["question q1", "question q2"]);
    expect(model.state.value.hasEarlier).toBe(false);
  });

  it("of another user is read with its owner", async () => {
    handlers.push(on("GET /agent/threads/t", () => Response.json(thread([question("q1")], [run("r1", "running")]))));
    const model = await modelOf("t", "u2");
    await vi.waitFor(() => expect(streams.map(({ url }) => url)).toEqual(["/agent/runs/r1/events?owner=u2"]));
    streams[0]!.send([runStarted("r1")], 1);
    handlers.push(on("GET /agent/runs/r1", () => Response.json(run("r1", "running"))));
    streams[0]!.refuse();
    await vi.waitFor(() => expect(streams.at(-1)!.url).toBe("/agent/runs/r1/events?owner=u2&last_event_id=1-0"), 4_000);
    expect(lines("GET /agent/")).toEqual(["GET /agent/threads/t?owner=u2&limit=500", "GET /agent/runs/r1?owner=u2"]);
    await model.rename("Rays").catch(() => undefined);
    expect(lines("PUT")).toEqual(["PUT /agent/threads/t/title?owner=u2"]);
  });

  it("that does not exist is a problem", async () => {
    handlers.push(on("GET /agent/threads/t", () => problem(404, "thread-not-found")));
    const model = await modelOf("t");
    await vi.waitFor(() => expect(model.state.value.problem?.slug).toBe("thread-not-found"));
  });
});

describe("a message", () => {
  it("is sent with the conversation, and its answer is read from the response", async () => {
    const { response, send } = answering();
    handlers.push(
      on("GET /agent/threads/t", () => Response.json(thread([question("q1"), answer("a1")], []))),
      on("POST /agent", () => response),
    );
    const model = await modelOf("t");
    await shows(model, ["question q1", "answer a1"]);
    await model.send("Why?", "research");
    const { body } = asked.find(({ line }) => line === "POST /agent")!;
    expect(body).toMatchObject({ protocolVersion: "1.0", threadId: "t", forwardedProps: { workspace: "research" } });
    expect((body["messages"] as JsonObject[]).map(({ role, content }) => [role, content])).toEqual([
      ["user", "question q1"],
      ["assistant", "answer a1"],
      ["user", "Why?"],
    ]);
    expect(changes).toBe(1);
    const runId = body["runId"] as string;
    send([runStarted(runId), textStart("a2"), textDelta("a2", "Because.")], 1);
    await shows(model, ["question q1", "answer a1", "Why?", "Because."]);
    send([runFinished(runId)], 4);
    await vi.waitFor(() => expect(status(model)).toBe("finished"));
    expect(streams).toEqual([]);
    expect(changes).toBe(2);
  });

  it("goes on by the stream of the run when its response is cut", async () => {
    const { response, send, cut } = answering();
    handlers.push(
      on("POST /agent", () => response),
      ({ line }) => (/^GET \/agent\/runs\/[^/]+$/.test(line) ? Response.json(run("r", "running")) : undefined),
    );
    const model = await modelOf(null);
    await model.send("Why?", "default");
    const runId = asked.find(({ line }) => line === "POST /agent")!.body["runId"] as string;
    send([runStarted(runId), textStart("a1"), textDelta("a1", "Be")], 1);
    await shows(model, ["Why?", "Be"]);
    cut();
    await vi.waitFor(() => expect(streams.map(({ url }) => url)).toEqual([`/agent/runs/${runId}/events?last_event_id=3-0`]), 4_000);
    streams[0]!.send([runStarted(runId), textStart("a1")], null);
    streams[0]!.send([textDelta("a1", "cause."), runFinished(runId)], 4);
    await shows(model, ["Why?", "Because."]);
  });

  it("that is sent again after the connection failed begins one run", async () => {
    let attempts = 0;
    handlers.push(
      on("POST /agent", () => {
        attempts += 1;
        if (attempts === 1) throw new TypeError("network error");
        return problem(409, "run-exists");
      }),
    );
    const model = await modelOf(null);
    await expect(model.send("Why?", "default")).rejects.toThrow(TypeError);
    expect(texts(model)).toEqual([]);
    await model.send("Why?", "default");
    const [first, second] = asked.filter(({ line }) => line === "POST /agent").map(({ body }) => body);
    expect(second).toEqual(first);
    expect(streams.map(({ url }) => url)).toEqual([`/agent/runs/${String(first!["runId"])}/events`]);
    await shows(model, ["Why?"]);
  });

  it("that is refused is not part of the conversation, and the next attempt is another run", async () => {
    handlers.push(on("POST /agent", () => problem(429, "tokens-spent")));
    const model = await modelOf(null);
    await expect(model.send("Why?", "default")).rejects.toMatchObject({ slug: "tokens-spent" });
    await expect(model.send("Why?", "default")).rejects.toMatchObject({ slug: "tokens-spent" });
    const runs = asked.map(({ body }) => body["runId"]);
    expect(new Set(runs).size).toBe(2);
    expect(texts(model)).toEqual([]);
    expect(model.exists).toBe(false);
  });

  it("that meets a run of another tab shows that run", async () => {
    const runs: JsonObject[] = [];
    handlers.push(
      on("GET /agent/threads/t", () => Response.json(thread([question("q1")], runs))),
      on("POST /agent", () => problem(409, "thread-busy")),
    );
    const model = await modelOf("t");
    await shows(model, ["question q1"]);
    runs.push(run("r9", "running"));
    await expect(model.send("Why?", "default")).rejects.toMatchObject({ slug: "thread-busy" });
    await vi.waitFor(() => expect(streams.map(({ url }) => url)).toEqual(["/agent/runs/r9/events"]));
  });
});

describe("an answer", () => {
  it("is replaced when the question is asked again", async () => {
    const { response, send } = answering();
    handlers.push(
      on("GET /agent/threads/t", () => Response.json(thread([question("q1"), answer("a1")], []))),
      on("POST /agent", () => response),
    );
    const model = await modelOf("t");
    await shows(model, ["question q1", "answer a1"]);
    await model.regenerate("default");
    const { body } = asked.find(({ line }) => line === "POST /agent")!;
    expect(body["messages"]).toEqual([{ ...question("q1"), metadata: { "hx.shield.superseded": ["a1"] } }]);
    send([runStarted("r"), textStart("a2"), textDelta("a2", "Another.")], 1);
    await shows(model, ["question q1", "Another."]);
  });

  it("stays if the question cannot be asked again", async () => {
    handlers.push(
      on("GET /agent/threads/t", () => Response.json(thread([question("q1"), answer("a1")], []))),
      on("POST /agent", () => problem(503, "run-log-unavailable")),
    );
    const model = await modelOf("t");
    await shows(model, ["question q1", "answer a1"]);
    await expect(model.regenerate("default")).rejects.toMatchObject({ slug: "run-log-unavailable" });
    expect(texts(model)).toEqual(["question q1", "answer a1"]);
  });

  it("is stopped by the server", async () => {
    handlers.push(
      on("GET /agent/threads/t", () => Response.json(thread([question("q1")], [run("r1", "running")]))),
      on("POST /agent/runs/r1/cancel", () => new Response(null, { status: 202 })),
    );
    const model = await modelOf("t");
    await vi.waitFor(() => expect(streams.length).toBe(1));
    streams[0]!.send([runStarted("r1"), textStart("a1"), textDelta("a1", "Sha")], 1);
    await model.stop();
    expect(lines("POST")).toEqual(["POST /agent/runs/r1/cancel"]);
    streams[0]!.send([runFinished("r1", { type: "cancelled" })], 4);
    await vi.waitFor(() => expect(status(model)).toBe("cancelled"));
    expect(texts(model)).toEqual(["question q1", "Sha"]);
  });
});

describe("another tab", () => {
  it("shows a run that has begun elsewhere", async () => {
    const runs = [run("r1", "finished")];
    const messages = [question("q1"), answer("a1")];
    handlers.push(on("GET /agent/threads/t", () => Response.json(thread(messages, runs))));
    const model = await modelOf("t");
    await vi.waitFor(() => expect(streams.length).toBe(1));
    streams[0]!.send([runStarted("r1"), textStart("a1"), textDelta("a1", "answer a1"), runFinished("r1")], 1);
    await model.refresh();
    expect(streams.length).toBe(1);
    runs.unshift(run("r2", "running"));
    messages.push(question("q2"));
    await model.refresh();
    await shows(model, ["question q1", "answer a1", "question q2"]);
    expect(streams[1]!.url).toBe("/agent/runs/r2/events");
    streams[1]!.send([runStarted("r2"), textStart("a2"), textDelta("a2", "two")], 1);
    await shows(model, ["question q1", "answer a1", "question q2", "two"]);
  });

  it("is not followed any more after the conversation was closed", async () => {
    handlers.push(on("GET /agent/threads/t", () => Response.json(thread([question("q1")], [run("r1", "running")]))));
    const model = await modelOf("t");
    await vi.waitFor(() => expect(streams.length).toBe(1));
    model.close();
    expect(streams[0]!.readyState).toBe(2);
    await model.refresh();
    expect(lines("GET /agent/").length).toBe(1);
  });
});

it("is no longer followed when it has been deleted elsewhere", async () => {
  handlers.push(on("GET /agent/threads/t", () => Response.json(thread([question("q1")], [run("r1", "running")]))));
  const model = await modelOf("t");
  await vi.waitFor(() => expect(streams.length).toBe(1));
  handlers.unshift(on("GET /agent/runs/r1", () => problem(404, "run-not-found")));
  streams[0]!.refuse();
  await vi.waitFor(() => expect(model.state.value.problem?.slug).toBe("run-not-found"));
  expect(model.feed.value!.state.value.kind).toBe("ended");
});
