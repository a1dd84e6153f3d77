// @vitest-environment happy-dom

/** The pages in a document, with a backend that answers as the real one does. */

import { render } from "preact";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { JsonObject } from "../src/lib/untrusted";
import { callArgs, callResult, callStart, framesOf, runError as agentRunError, runFinished as agentRunFinished, textDelta } from "./agent-events";
import { answer, gap, JOB, runError, runStarted, snapshot, toolCall, toolResult } from "./events";
import { TusServer } from "./tus-server";

const MARKUP = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>';
const USER = { id: "7f1d0a0e-6a3c-4f70-8f61-3d2f6a1c0001", email: "alice@shield.test", role: "admin" };
const ADMIN = Object.fromEntries(
  ["jobs:read", "agent:read", "agent:run", "tools:query", "tools:write", "admin:stream", "admin:users", "admin:workspaces", "admin:audit", "admin:config"].map((name) => [name, "everything"]),
);
const OTHER = "7f1d0a0e-6a3c-4f70-8f61-3d2f6a1c0002";
const VIEWER = { "jobs:read": "own", "tools:query": "workspace" };

type Handler = (request: { method: string; path: string; query: URLSearchParams; body: JsonObject }) => Response | undefined;

let handlers: Handler[];
let requests: string[];
let streams: FakeStream[];
let loggedIn: boolean;
let permissions: Record<string, string>;

class FakeStream extends EventTarget {
  readyState = 0;
  onopen: (() => void) | null = null;
  onerror: (() => void) | null = null;

  constructor(readonly url: string) {
    super();
    streams.push(this);
  }

  close(): void {
    this.readyState = 2;
  }

  send(...events: readonly JsonObject[]): void {
    for (const event of events) {
      this.dispatchEvent(Object.assign(new Event(event["type"] as string), { data: JSON.stringify(event), lastEventId: "" }));
    }
  }
}

const problem = (status: number, slug: string, errors?: unknown): Response =>
  Response.json({ type: `urn:shield-ag-ui:problem:${slug}`, title: `Title of ${slug}`, status, detail: `Detail of ${slug}.`, errors }, { status });

function job(id: string, changed: JsonObject = {}): JsonObject {
  const times = { created_at: "2026-11-30T10:00:00Z", updated_at: "2026-11-30T10:00:00Z", completed_at: null };
  return { id, owner_id: USER.id, owner_name: "Alice", subject: `about ${id}`, workspace: "default", kind: "crawl", status: "running", percent: 40, error: null, result: null, ...times, ...changed };
}

/** What every page asks for. */
const common: Handler = ({ method, path }) => {
  if (path === "/auth/me") return loggedIn ? Response.json(USER) : problem(401, "not-authenticated");
  if (path === "/auth/refresh") return problem(401, "not-authenticated");
  if (path === "/api/permissions") {
    if (!loggedIn) return problem(401, "not-authenticated");
    return Response.json({ matrix: {}, tools: {}, everywhere: false, workspaces: [{ workspace: "default", role: "admin", permissions }] });
  }
  if (path === "/auth/logout" && method === "POST") {
    loggedIn = false;
    return new Response(null, { status: 204 });
  }
  return undefined;
};

async function open(address: string): Promise<void> {
  window.history.replaceState(null, "", address);
  const { App } = await import("../src/app");
  const { startSession } = await import("../src/session");
  await startSession();
  render(<App />, document.getElementById("app")!);
}

const text = (): string => document.body.textContent ?? "";
const find = <E extends Element = HTMLElement>(selector: string): E => {
  const found = document.querySelector<E>(selector);
  if (!found) throw new Error(`no ${selector} in ${document.body.innerHTML}`);
  return found;
};
const button = (name: string): HTMLButtonElement => {
  const found = [...document.querySelectorAll("button")].find((each) => each.textContent?.trim() === name || each.getAttribute("aria-label") === name);
  if (!found) throw new Error(`no button ${name} in ${text()}`);
  return found;
};
const input = (label: string, within: ParentNode = document): HTMLInputElement => {
  const found = [...within.querySelectorAll("label")].find((each) => each.textContent === label);
  return find<HTMLInputElement>(`#${CSS.escape(found?.htmlFor ?? label)}`);
};
async function type(label: string, value: string): Promise<void> {
  const field = input(label);
  field.value = value;
  field.dispatchEvent(new Event("input", { bubbles: true }));
  // Rendered, as it is before the next key.
  await new Promise((resolve) => setTimeout(resolve));
}
async function choose(label: string, value: string, within: ParentNode = document): Promise<void> {
  const select = input(label, within) as unknown as HTMLSelectElement;
  select.value = value;
  select.dispatchEvent(new Event("change", { bubbles: true }));
  await new Promise((resolve) => setTimeout(resolve));
}
const submit = (form: Element = find("form")): void => void form.dispatchEvent(new Event("submit", { bubbles: true, cancelable: true }));
const shows = (expected: string): Promise<void> => vi.waitFor(() => expect(text()).toContain(expected));

beforeEach(() => {
  handlers = [];
  requests = [];
  streams = [];
  loggedIn = true;
  permissions = ADMIN;
  vi.resetModules();
  document.body.innerHTML = '<div id="app"></div>';
  vi.stubGlobal("EventSource", FakeStream);
  vi.stubGlobal("fetch", async (target: Request | string, init?: RequestInit) => {
    const request = new Request(new URL(typeof target === "string" ? target : target.url, window.location.origin), typeof target === "string" ? init : target);
    const url = new URL(request.url);
    const body = (await request.text()) || "{}";
    requests.push(`${request.method} ${url.pathname}${url.search}`);
    const asked = { method: request.method, path: url.pathname, query: url.searchParams, body: JSON.parse(body) as JsonObject };
    for (const handler of [...handlers, common]) {
      const response = handler(asked);
      if (response) return response;
    }
    return problem(404, "not-found");
  });
});

afterEach(() => {
  render(null, document.getElementById("app")!);
  expect((window as { hacked?: unknown }).hacked).toBeUndefined();
  vi.unstubAllGlobals();
});

describe("the login", () => {
  it("leads back to the page that was asked for, with a second factor where the account has one", async () => {
    loggedIn = false;
    const bodies: JsonObject[] = [];
    handlers.push(({ path, body }) => {
      if (path !== "/auth/login") return undefined;
      bodies.push(body);
      if (!body["otp"]) return problem(401, "second-factor-required");
      if (body["otp"] !== "123456") return problem(401, "second-factor-rejected");
      loggedIn = true;
      return Response.json({ token_type: "cookie", expires_in: 1800, refresh_expires_in: 28800 });
    });
    await open("/console/mine");
    await shows("Forgot your password?");
    expect(window.location.search).toBe("?next=%2Fconsole%2Fmine");
    await type("Email address", USER.email);
    await type("Password", "correct horse");
    submit();
    await shows("has a second factor");
    expect(document.activeElement).toBe(input("Code of your authenticator"));
    await type("Code of your authenticator", "000 000");
    submit();
    await shows("This code is wrong or was used before");
    await type("Code of your authenticator", "123 456");
    submit();
    await vi.waitFor(() => expect(window.location.pathname).toBe("/console/mine"));
    await shows("Log out everywhere");
    expect(bodies.at(-1)).toEqual({ email: USER.email, password: "correct horse", cookies: true, otp: "123456" });
    expect(document.activeElement?.textContent).toBe("Mine");
  });

  it("says why it is refused", async () => {
    loggedIn = false;
    handlers.push(({ path }) => (path === "/auth/login" ? problem(401, "wrong-credentials") : undefined));
    await open("/console/login");
    await shows("Forgot your password?");
    submit();
    await shows("Title of wrong-credentials");
  });

  it("comes after the logout", async () => {
    await open("/console/mine");
    await shows("Log out everywhere");
    button("Log out").click();
    await shows("Forgot your password?");
    expect(requests).toContain("POST /auth/logout?everywhere=false");
  });
});

describe("the navigation", () => {
  it.each([
    [ADMIN, ["Live", "Start", "Agent", "Stream", "People", "Audit", "Settings", "Mine"]],
    [VIEWER, ["Live", "Start", "Mine"]],
  ])("has what the caller may use", async (granted, expected) => {
    permissions = granted;
    await open("/console/mine");
    await shows("Log out everywhere");
    expect([...document.querySelectorAll("nav a")].map((link) => link.textContent)).toEqual(expected);
    expect(find("nav [aria-current=page]").textContent).toBe("Mine");
  });

  it("knows no other page", async () => {
    await open("/console/nothing");
    await shows("There is no such page");
  });
});

describe("the page Live", () => {
  const list: Handler = ({ path, query }) => {
    if (path === "/api/jobs/counts") return Response.json({ queued: 0, running: 2, completed: 7, failed: 0, cancelled: 0 });
    if (path !== "/api/jobs") return undefined;
    const jobs = [job("one"), job("two", { subject: MARKUP, kind: MARKUP, owner_name: MARKUP, workspace: MARKUP })];
    return Response.json({ items: query.get("status") === "failed" ? [] : jobs, next_cursor: null });
  };

  it("shows jobs, moves them with events, and shows markup as text", async () => {
    handlers.push(list);
    await open("/console/");
    await shows("about one");
    streams[0]!.onopen?.();
    await shows("Connected");
    streams[0]!.send(snapshot({ status: "running", percent: 77, latest: { message: MARKUP, pages_crawled: 3, pages_total: 9 } }, { job: "one", at: Date.now() }));
    await shows("77 %");
    expect(text()).toContain("3/9 pages");
    expect(text()).toContain(MARKUP);
    expect(document.querySelector("img, main script")).toBeNull();
    expect(find("[role=table]").getAttribute("aria-rowcount")).toBe("3");
    expect(button("Completed7")).toBeTruthy();
  });

  it("keeps the filters in the address", async () => {
    handlers.push(list);
    await open("/console/live?kind=crawl");
    await shows("about one");
    button("Failed0").click();
    await shows("No job matches these filters");
    expect(window.location.search).toBe("?status=failed&kind=crawl");
    expect(requests.some((request) => request.startsWith("GET /api/jobs?status=failed&kind=crawl"))).toBe(true);
    button("Show all jobs").click();
    await shows("about one");
    expect(window.location.search).toBe("");
  });

  it("says that it reconnects, that it has resumed, and that events are missing", async () => {
    handlers.push(list);
    await open("/console/live");
    await shows("about one");
    const stream = streams[0]!;
    stream.onopen?.();
    stream.dispatchEvent(Object.assign(new Event("RAW"), { data: "{}", lastEventId: "5-0" }));
    stream.onerror?.();
    await shows("Reconnecting since");
    stream.onopen?.();
    await shows("Connection resumed");
    stream.send(gap({ after: "1763856000000-0", before: "1763856003000-0", reason: "trimmed", message: MARKUP }));
    await shows("Some events are missing between");
    button("Dismiss").click();
    await vi.waitFor(() => expect(text()).not.toContain("Some events are missing"));
  });

  it("says what is wrong if the list cannot be read", async () => {
    handlers.push(({ path }) => (path === "/api/jobs" ? problem(503, "database-unavailable") : undefined));
    await open("/console/live");
    await shows("Title of database-unavailable");
    handlers.unshift(list);
    button("Try again").click();
    await shows("about one");
  });
});

describe("the page of a job", () => {
  const address = `/console/jobs/${JOB}`;
  const details: Handler = ({ method, path }) => {
    if (path === `/api/jobs/${JOB}`) return Response.json(job(JOB));
    if (path === `/api/jobs/${JOB}/history`) {
      const stored = { id: "1-0", event_id: "h1", type: "job:queued", occurred_at: "2026-11-30T10:00:00Z", data: { message: MARKUP }, metadata: {} };
      return Response.json({ items: [stored], next_cursor: null });
    }
    if (path === `/api/jobs/${JOB}/cancel` && method === "POST") return problem(409, "cannot-cancel");
    return undefined;
  };

  it("shows its timeline, its tool calls and its answer as text", async () => {
    handlers.push(details);
    await open(address);
    await shows(`about ${JOB}`);
    streams[0]!.send(
      runStarted(),
      ...toolCall("c1", MARKUP, { url: MARKUP }, { at: 1_000 }),
      toolResult("c1", { answer: MARKUP }, { at: 3_000 }),
      ...answer(MARKUP),
      runError(MARKUP),
    );
    await shows("2.0 s");
    await vi.waitFor(() => expect(document.querySelectorAll(".timeline li").length).toBeGreaterThan(2));
    expect(find(".answer").textContent).toBe(MARKUP);
    expect(find(".calls .mono").textContent).toBe(MARKUP);
    expect(document.querySelector("img, main script")).toBeNull();
    expect(streams[0]!.readyState).toBe(2);
    await vi.waitFor(() => expect(requests.filter((request) => request.includes("/history")).length).toBe(2), 4_000);
  });

  it("shows the calls about it, with arguments, outcomes and durations", async () => {
    const call = { id: "c1", user_id: USER.id, workspace: "default", tool: "crawl_web", arguments: { url: MARKUP }, outcome: "success", error: null, job_id: JOB, started_at: "2026-11-30T10:00:00Z", duration_ms: 1_250 };
    const refused = { ...call, id: "c2", user_id: OTHER, tool: "cancel_job", outcome: "denied", error: MARKUP, duration_ms: 12 };
    handlers.push(details, ({ path, query }) => {
      if (path !== "/api/calls") return undefined;
      return Response.json(query.get("cursor") ? { items: [call], next_cursor: null } : { items: [refused], next_cursor: "2" });
    });
    await open(address);
    await shows("Calls about this job");
    expect(requests).toContain(`GET /api/calls?job_id=${JOB}&limit=50&cursor=`);
    button("Show earlier calls").click();
    await shows("crawl_web");
    const [cancelled, crawled] = [...document.querySelectorAll(".calls > li")].map((each) => each.textContent);
    expect(cancelled).toContain("cancel_jobDenied0.0 s");
    expect(cancelled).toContain(MARKUP);
    expect(crawled).toContain("crawl_webSuccess1.2 s");
    expect(crawled).toContain("ByYou");
    expect(crawled).toContain(JSON.stringify(MARKUP));
    expect(find(".calls a").getAttribute("href")).toBe(`/console/people/${OTHER}`);
    expect(document.querySelector("img, main script")).toBeNull();
  });

  it("asks before it cancels, and says why it cannot", async () => {
    handlers.push(details);
    await open(address);
    await shows("Cancel the job");
    button("Cancel the job").click();
    await shows("It cannot be resumed.");
    expect(requests.some((request) => request.includes("/cancel"))).toBe(false);
    find<HTMLButtonElement>("dialog .button-danger").click();
    await shows("Title of cannot-cancel. Detail of cannot-cancel.");
    expect(document.querySelector("dialog")).toBeNull();
  });

  it("does not offer to cancel to those who may not", async () => {
    permissions = VIEWER;
    handlers.push(details);
    await open(address);
    await shows(`about ${JOB}`);
    expect(text()).not.toContain("Cancel the job");
  });

  it("says that there is no such job", async () => {
    handlers.push(({ path }) => (path.startsWith("/api/jobs/") ? problem(404, "job-not-found") : undefined));
    await open(address);
    await shows("Title of job-not-found");
  });
});

describe("the page Start", () => {
  const schema = { type: "object", required: ["url"], properties: { url: { type: "string", format: "uri", title: "Url" }, max_pages: { type: "integer", default: 10, maximum: 50, title: "Max Pages" } } };
  const tools: Handler = ({ path }) =>
    path === "/api/tools"
      ? Response.json({ items: [{ name: "crawl_web", title: "Crawl", description: MARKUP, writes: true, starts_job: true, input_schema: schema }] })
      : undefined;

  it("shows errors at the field, its own and those of the server, and leads to the job", async () => {
    handlers.push(tools, ({ path, body }) => {
      if (path !== "/api/tools/crawl_web") return undefined;
      const url = (body["arguments"] as JsonObject)["url"];
      if (url !== "https://example.org/") return problem(422, "invalid-request", [{ field: "body.arguments.url", message: "is no public host" }]);
      return Response.json({ status: "accepted", id: JOB, job_id: JOB, workspace: "default", job: "", events: "" }, { status: 202 });
    });
    await open("/console/start");
    await shows("Crawl a web site");
    submit();
    await shows("Fill this in.");
    await vi.waitFor(() => expect(document.activeElement).toBe(input("Url")));
    expect(input("Url").getAttribute("aria-invalid")).toBe("true");
    await type("Url", "http://localhost/");
    submit();
    await shows("is no public host");
    await type("Url", "https://example.org/");
    submit();
    await vi.waitFor(() => expect(window.location.pathname).toBe(`/console/jobs/${JOB}`));
  });
});

describe("the page Start, for a document", () => {
  const path = { type: "string", maxLength: 1024 };
  const properties = { file_path: { anyOf: [path, { type: "null" }], default: null, title: "File Path" }, upload_id: { anyOf: [{ type: "string" }, { type: "null" }], default: null, title: "Upload Id" } };
  let server: TusServer;
  let accepts: boolean;
  let bodies: JsonObject[];

  beforeEach(() => {
    server = new TusServer();
    accepts = true;
    bodies = [];
    vi.stubGlobal("XMLHttpRequest", server.XMLHttpRequest);
    handlers.push(({ method, path: asked, body }) => {
      if (asked === "/api/tools") return Response.json({ items: [{ name: "ingest_doc", title: "", description: "", writes: true, starts_job: true, input_schema: { type: "object", properties } }] });
      if (method === "OPTIONS") return accepts ? new Response(null, { status: 204, headers: { "tus-max-size": "1048576" } }) : problem(404, "uploads-disabled");
      if (asked !== "/api/tools/ingest_doc") return undefined;
      bodies.push(body["arguments"] as JsonObject);
      return Response.json({ status: "accepted", id: JOB, job_id: JOB, workspace: "default", job: "", events: "" }, { status: 202 });
    });
  });

  it("uploads it, and starts with its id", async () => {
    await open("/console/start");
    await shows("At most 1 MiB.");
    submit();
    await shows("Choose a document, and wait until it is uploaded.");
    const chosen = new File(["0123456789"], MARKUP, { lastModified: 1 });
    const field = input("Document");
    Object.defineProperty(field, "files", { value: [chosen] });
    field.dispatchEvent(new Event("change", { bubbles: true }));
    await vi.waitFor(() => expect(server.transfer).not.toBeNull());
    server.move(4);
    await shows("Uploading · 4 B of 10 B");
    await vi.waitFor(() => expect(document.activeElement).toBe(button("Pause")));
    button("Pause").click();
    await shows("Paused · 4 B of 10 B");
    const paused = server.transfer;
    button("Resume").click();
    await vi.waitFor(() => expect(server.transfer).not.toBe(paused));
    submit();
    await shows("Choose a document, and wait until it is uploaded.");
    server.move(6);
    await shows("Uploaded · 10 B of 10 B");
    await vi.waitFor(() => expect(document.querySelector(".field-error")).toBeNull());
    expect(find(".upload-name").textContent).toBe(MARKUP);
    submit();
    await vi.waitFor(() => expect(window.location.pathname).toBe(`/console/jobs/${JOB}`));
    expect(bodies).toEqual([{ upload_id: "up-1" }]);
  });

  it("takes a path instead", async () => {
    await open("/console/start");
    await shows("Upload a file");
    find<HTMLInputElement>("input[value=file_path]").click();
    await vi.waitFor(() => input("File path"));
    submit();
    await shows("Fill this in.");
    await type("File path", "/data/sharks.pdf");
    submit();
    await vi.waitFor(() => expect(bodies).toEqual([{ file_path: "/data/sharks.pdf" }]));
  });

  it("takes only a path where the server accepts no uploads", async () => {
    accepts = false;
    await open("/console/start");
    await vi.waitFor(() => input("File path"));
    expect(document.querySelector("input[type=file], input[type=radio]")).toBeNull();
  });
});

describe("the page Agent", () => {
  const times = { created_at: "2026-11-30T10:00:00Z", updated_at: "2026-11-30T10:00:00Z" };
  const summary = (id: string, changed: JsonObject = {}): JsonObject => ({ id, owner_id: USER.id, workspace: "default", title: `title of ${id}`, ...times, ...changed });
  const run = (id: string, status: string): JsonObject => ({ id, thread_id: "t", workspace: "default", owner_id: USER.id, status, error: null, usage: null, started_at: times.created_at, ended_at: null });
  const asked = { id: "q1", role: "user", content: MARKUP };
  let thread: JsonObject;
  let threads: JsonObject[];
  let bodies: JsonObject[];

  const api: Handler = ({ method, path, query, body }) => {
    if (path === "/agent/threads") {
      return query.get("cursor") ? Response.json({ items: [summary("old")], next_cursor: null }) : Response.json({ items: threads, next_cursor: "older" });
    }
    if (path === "/agent/threads/t" && method === "GET") return Response.json(thread);
    if (path === "/agent/threads/t" && method === "DELETE") {
      threads = [];
      return new Response(null, { status: 204 });
    }
    if (path === "/agent/threads/t/title") {
      threads = [summary("t", { title: body["title"] })];
      return Response.json(threads[0]);
    }
    if (path.endsWith("/cancel")) {
      bodies.push({ path });
      return new Response(null, { status: 202 });
    }
    return undefined;
  };
  const composer = (): HTMLTextAreaElement => input("Message") as unknown as HTMLTextAreaElement;

  beforeEach(() => {
    thread = { ...summary("t"), messages: [asked], runs: [run("r1", "running")], active_run_id: "r1", next_cursor: null, earlier: null };
    threads = [summary("t"), summary("theirs", { owner_id: "someone" })];
    bodies = [];
    handlers.push(api);
  });

  it("shows an answer and its tool calls as they come, and markup as text", async () => {
    await open("/console/agent?thread=t");
    await vi.waitFor(() => expect(streams.length).toBe(1));
    streams[0]!.onopen?.();
    streams[0]!.send(textDelta("a1", `**Sharks** [x](javascript:window.hacked=1) ${MARKUP}`), callStart("c1", MARKUP, "a1"), callArgs("c1", '{"url": "https'));
    await vi.waitFor(() => expect(find(".reply strong").textContent).toBe("Sharks"));
    await shows('{"url": "https');
    expect(find(".turns").getAttribute("aria-busy")).toBe("true");
    expect(find(".question p").textContent).toBe(MARKUP);
    streams[0]!.send(callArgs("c1", '://example.org/"}'), callResult("c1", JSON.stringify({ job_id: JOB, note: MARKUP })));
    await shows("Open the job");
    expect(find<HTMLAnchorElement>(".call a").pathname).toBe(`/console/jobs/${JOB}`);
    streams[0]!.send(agentRunError(MARKUP, true));
    await vi.waitFor(() => expect(find(".notice-error").textContent).toBe(MARKUP));
    expect(find(".turns").getAttribute("aria-busy")).toBe("false");
    expect(button("Answer again")).toBeTruthy();
    expect(document.querySelector("img, main script, .reply a[href^=java]")).toBeNull();
  });

  it("stops a run, and says so", async () => {
    await open("/console/agent?thread=t");
    await shows("Thinking…");
    button("Stop").click();
    await shows("Stopping…");
    expect(bodies).toEqual([{ path: "/agent/runs/r1/cancel" }]);
    streams[0]!.send(agentRunFinished("r1", { type: "cancelled" }));
    await shows("This answer was stopped.");
    expect(button("Send")).toBeTruthy();
  });

  it("begins a conversation, which then has an address and a title", async () => {
    let stream!: ReadableStreamDefaultController<Uint8Array>;
    let refused = true;
    handlers.unshift(({ path, body }) => {
      const id = String(bodies[0]?.["threadId"]);
      if (path === `/agent/threads/${id}`) return Response.json({ ...thread, ...summary(id, { title: "What swims?" }) });
      if (path !== "/agent") return undefined;
      bodies.push(body);
      if (refused) return problem(429, "tokens-spent");
      const answered = new ReadableStream<Uint8Array>({ start: (controller) => void (stream = controller) });
      return new Response(answered, { headers: { "content-type": "text/event-stream" } });
    });
    await open("/console/agent");
    await shows("Ask about what Shield knows");
    const field = composer();
    field.value = "What swims?";
    field.dispatchEvent(new Event("input", { bubbles: true }));
    await new Promise((resolve) => setTimeout(resolve));
    field.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", shiftKey: true, bubbles: true }));
    expect(bodies).toEqual([]);
    field.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", bubbles: true, cancelable: true }));
    await shows("Title of tokens-spent. Detail of tokens-spent.");
    expect(composer().value).toBe("What swims?");
    expect(window.location.search).toBe("");
    refused = false;
    button("Send").click();
    await vi.waitFor(() => expect(window.location.search).toBe(`?thread=${String(bodies[1]!["threadId"])}`));
    await vi.waitFor(() => expect(composer().value).toBe(""));
    expect(document.activeElement).toBe(composer());
    expect(find(".question p").textContent).toBe("What swims?");
    await vi.waitFor(() => expect(find(".conversation h2").textContent).toBe("What swims?"));
    stream.enqueue(new TextEncoder().encode(framesOf([textDelta("a1", "- *Sharks*")])));
    await vi.waitFor(() => expect(find(".reply li em").textContent).toBe("Sharks"));
    expect(streams).toEqual([]);
  });

  it("lists conversations, and those of others on request, which can be read only", async () => {
    await open("/console/agent");
    await shows("title of t");
    expect(text()).not.toContain("title of theirs");
    button("Show earlier ones").click();
    await shows("title of old");
    find<HTMLInputElement>("nav input[type=checkbox]").click();
    await shows("title of theirs");
    handlers.unshift(({ path }) => (path === "/agent/threads/theirs" ? Response.json({ ...thread, ...summary("theirs", { owner_id: "someone" }), runs: [] }) : undefined));
    const { router } = await import("../src/lib/router");
    router().go(find<HTMLAnchorElement>('a[href$="thread=theirs&owner=someone"]').getAttribute("href")!);
    await shows("This is the conversation of another user");
    expect(requests).toContain("GET /agent/threads/theirs?owner=someone&limit=500");
    expect(document.querySelector("textarea")).toBeNull();
    expect(find(".threads [aria-current=page]").textContent).toContain("title of theirs");
  });

  it("renames a conversation, and deletes it after a question", async () => {
    thread = { ...thread, runs: [] };
    await open("/console/agent?thread=t");
    await vi.waitFor(() => button("Rename"));
    button("Rename").click();
    await vi.waitFor(() => expect(document.activeElement).toBe(input("Title")));
    await type("Title", " About sharks ");
    find(".rename").dispatchEvent(new Event("submit", { bubbles: true, cancelable: true }));
    await vi.waitFor(() => expect(find(".conversation h2").textContent).toBe("About sharks"));
    await vi.waitFor(() => expect(find(".thread-title").textContent).toBe("About sharks"));
    button("Delete").click();
    await shows("Delete this conversation?");
    button("Delete the conversation").click();
    await shows("No conversation yet.");
    expect(window.location.search).toBe("");
    await shows("New conversation");
  });

  it("shows in another tab what was begun in this one", async () => {
    thread = { ...thread, messages: [], runs: [] };
    await open("/console/agent?thread=t");
    await shows("Ask about what Shield knows");
    thread = { ...thread, messages: [asked], runs: [run("r2", "running")] };
    const other = new BroadcastChannel("shield-agent");
    other.postMessage("t");
    await vi.waitFor(() => expect(streams.map(({ url }) => url)).toEqual(["/agent/runs/r2/events"]));
    other.close();
    expect(find(".question p").textContent).toBe(MARKUP);
  });

  it("offers nothing to those who may only read", async () => {
    permissions = { "agent:read": "own" };
    await open("/console/agent?thread=t");
    await shows("You may not run the agent here.");
    expect(document.querySelector("textarea, .conversation button")).toBeNull();
  });
});

describe("the page Stream", () => {
  it("shows instances, consumers and gaps", async () => {
    const now = new Date().toISOString();
    const instance = { name: "host-8002", version: "1.0.0", started_at: now, reported_at: now, status: "degraded", problems: { redis: MARKUP }, not_ready: "draining", open_streams: 1_234, agent_runs: 2, resident_bytes: 100 * 2 ** 20 };
    const silent = { ...instance, name: "host-8003", reported_at: "2000-01-01T00:00:00Z" };
    const group = { name: "ag-ui-clients", lag: 7, pending: 3, last_delivered_id: "1-0", consumers: [{ name: "host-8002", pending: 3, idle_ms: 90_000 }] };
    const gap = { after: "1-0", before: "9-0", reason: "trimmed", entries: 8_765, noticed_at: now };
    handlers.push(({ path }) => {
      if (path === "/admin/operations") return Response.json({ instances: [instance, silent], gaps: [gap], stream: { stream: "shield:events", length: 1, entries_added: 1, first_id: null, last_id: null, group, open_dead_letters: 0 } });
      return path === "/admin/stream/dead-letters" ? Response.json({ items: [], next_cursor: null }) : undefined;
    });
    await open("/console/stream");
    await shows("There are none: all events are stored.");
    const [first, second, consumer, lost] = [...document.querySelectorAll("tbody tr")].map((row) => row.textContent);
    expect(first).toContain(`host-8002DegradedGets no traffic: drainingredis: ${MARKUP}1.0.01,2342100 MiB`);
    expect(second).toContain("host-8003Does not report");
    expect(consumer).toContain("host-800231 min 30 s ago Silent");
    expect(lost).toContain("8,765trimmed1-09-0");
    expect(document.querySelector("img, main script")).toBeNull();
  });

  it("replays a dead letter after a question, and shows the rate of events since the last report", async () => {
    let added = 20_000;
    vi.spyOn(performance, "now").mockImplementation(() => added);
    const letter = { id: "5-0", reason: MARKUP, fields: MARKUP, created_at: "2026-11-30T10:00:00Z", closed_at: null, closed_how: null, closed_by: null, replayed_as: null };
    handlers.push(({ path }) => {
      if (path === "/admin/operations") return Response.json({ instances: [], gaps: [], stream: { stream: "shield:events", length: 12_345, entries_added: (added += 5_000), first_id: "1763856000000-0", last_id: null, group: null, open_dead_letters: 1 } });
      if (path === "/admin/stream/dead-letters") return Response.json({ items: [letter], next_cursor: null });
      if (path === "/admin/stream/dead-letters/5-0/replay") return Response.json({ ...letter, closed_at: "2026-11-30T11:00:00Z", closed_how: "replayed", closed_by: "alice", replayed_as: "9-0" });
      return undefined;
    });
    await open("/console/stream");
    await shows("Events per second–In the stream12,345");
    await shows(MARKUP);
    button("Replay 5-0").click();
    await shows("Publish this entry again?");
    button("Publish it again").click();
    await shows("replayed by alice");
    await shows("Events per second1,000");
    expect(document.querySelector("img, main script")).toBeNull();
  });
});

function account(changed: JsonObject = {}): JsonObject {
  return { id: OTHER, email: "bob@shield.test", name: null, role: "viewer", active: true, locked_until: null, second_factor: false, memberships: [], created_at: "2026-11-30T10:00:00Z", ...changed };
}

const page = (...items: readonly JsonObject[]): Response => Response.json({ items, next_cursor: null });
const confirm = async (): Promise<void> => (await vi.waitFor(() => find<HTMLButtonElement>("dialog .button-danger"))).click();

describe("the page People", () => {
  it("lists users page by page, with the filters in the address", async () => {
    handlers.push(({ path, query }) => {
      if (path !== "/admin/users") return undefined;
      if (query.get("search") === "nobody") return page();
      if (query.get("cursor") === "2") return page(account({ id: USER.id, email: "carol@shield.test", active: false }));
      return Response.json({ items: [account({ name: MARKUP, locked_until: "2999-01-01T00:00:00Z", memberships: [{ workspace: "red", role: "admin" }] })], next_cursor: "2" });
    });
    await open("/console/people?role=viewer");
    await shows("bob@shield.test");
    expect(requests).toContain("GET /admin/users?role=viewer&limit=50&cursor=");
    expect(text()).toContain("1 or more users");
    expect(find("tbody tr").textContent).toContain("Locked");
    expect(find("tbody tr").textContent).toContain("red (admin)");
    button("Show more users").click();
    await shows("carol@shield.test");
    expect(text()).toContain("2 users");
    expect(text()).toContain("Deactivated");
    await type("Name or address", "nobody");
    submit();
    await shows("No user matches these filters.");
    expect(window.location.search).toBe("?search=nobody&role=viewer");
    await choose("State", "false");
    await vi.waitFor(() => expect(requests.at(-1)).toBe("GET /admin/users?search=nobody&role=viewer&active=false&limit=50&cursor="));
    button("Clear filters").click();
    await shows("bob@shield.test");
    await vi.waitFor(() => expect(input("Name or address").value).toBe(""));
    expect(document.querySelector("img, main script")).toBeNull();
  });

  it("says why the list is not shown", async () => {
    handlers.push(({ path }) => (path === "/admin/users" ? problem(403, "not-permitted") : undefined));
    await open("/console/people");
    await shows("Title of not-permitted. Detail of not-permitted.");
    handlers.unshift(({ path }) => (path === "/admin/users" ? page() : undefined));
    button("Try again").click();
    await shows("There are no users.");
  });

  it("creates an account, with the server's faults at the fields", async () => {
    const bodies: JsonObject[] = [];
    handlers.push(({ method, path, body }) => {
      if (path === `/admin/users/${OTHER}`) return Response.json(account());
      if (path !== "/admin/users") return undefined;
      if (method === "GET") return page();
      bodies.push(body);
      if (bodies.length === 1) return problem(422, "password-rejected", [{ field: "body.password", message: "is easy to guess" }]);
      return Response.json(account(), { status: 201 });
    });
    await open("/console/people");
    await shows("Create an account");
    await type("Email address", "bob@shield.test");
    await type("Password", "correct horse");
    const form = input("Password").form!;
    await choose("Role", "contributor", form);
    submit(form);
    await shows("This is easy to guess");
    expect(input("Password").getAttribute("aria-invalid")).toBe("true");
    submit(form);
    await vi.waitFor(() => expect(window.location.pathname).toBe(`/console/people/${OTHER}`));
    expect(bodies.at(-1)).toEqual({ email: "bob@shield.test", name: null, role: "contributor", memberships: [], password: "correct horse" });
  });

  it("invites, shows the link once, and withdraws an invitation after a question", async () => {
    let pending = [{ id: OTHER, email: "dan@shield.test", name: MARKUP, role: "viewer", memberships: [], invited_by: USER.email, created_at: "2026-11-30T10:00:00Z", expires_at: "2026-12-03T10:00:00Z" }];
    const bodies: JsonObject[] = [];
    handlers.push(({ method, path, body }) => {
      if (path === "/admin/workspaces") return page({ name: "default", members: 0 }, { name: "red", members: 1 });
      if (path === "/admin/users/invitations") return page(...pending);
      if (path === `/admin/users/invitations/${OTHER}` && method === "DELETE") {
        pending = [];
        return new Response(null, { status: 204 });
      }
      if (path !== "/admin/users/invite") return undefined;
      bodies.push(body);
      if (bodies.length === 1) return problem(403, "registration-closed");
      return Response.json({ id: OTHER, email: "eve@shield.test", role: "viewer", expires_at: "2026-12-03T10:00:00Z", mailed: false, link: "https://shield.test/register#token=t0ken" }, { status: 201 });
    });
    await open("/console/people?tab=invitations");
    await shows("dan@shield.test");
    expect(find("nav[aria-label=People] [aria-current=page]").textContent).toBe("Invitations");
    await type("Email address", "eve@shield.test");
    await choose("Member of", "red");
    await choose("Role in red", "contributor");
    submit();
    await shows("Title of registration-closed");
    submit();
    await shows("https://shield.test/register#token=t0ken");
    expect(bodies.at(-1)).toEqual({ email: "eve@shield.test", name: null, role: "viewer", memberships: [{ workspace: "red", role: "contributor" }] });
    button("I have passed it on").click();
    await vi.waitFor(() => expect(text()).not.toContain("t0ken"));
    button("Withdraw the invitation of dan@shield.test").focus();
    button("Withdraw the invitation of dan@shield.test").click();
    await shows("Withdraw this invitation?");
    expect(requests.some((request) => request.startsWith("DELETE"))).toBe(false);
    await confirm();
    await shows("The invitation of dan@shield.test is withdrawn.");
    expect(text()).toContain("Nobody has an invitation");
    // The button has gone: what has become of it has the focus.
    await vi.waitFor(() => expect(document.activeElement?.textContent).toBe("The invitation of dan@shield.test is withdrawn."));
    expect(document.querySelector("img, main script")).toBeNull();
  });

  it("creates and deletes workspaces, and changes their members", async () => {
    let members: JsonObject[] = [{ id: OTHER, email: "bob@shield.test", name: null, role: "viewer" }];
    handlers.push(({ method, path, query, body }) => {
      if (path === "/admin/workspaces") {
        if (method === "POST") return problem(409, "workspace-exists");
        return page({ name: "default", members: 0, created_at: "2026-11-30T10:00:00Z" }, { name: "red", members: members.length, created_at: "2026-11-30T10:00:00Z" });
      }
      if (path === "/admin/workspaces/red") return problem(409, "workspace-in-use");
      if (path === "/admin/workspaces/red/members") return page(...members);
      if (path === "/admin/users") return page(...(query.get("search") === USER.email ? [account({ id: USER.id, email: USER.email })] : []));
      const id = /^\/admin\/workspaces\/red\/members\/(.+)$/.exec(path)?.[1];
      if (!id) return undefined;
      const others = members.filter((each) => each["id"] !== id);
      members = method === "DELETE" ? others : [...others, { id, email: id === OTHER ? "bob@shield.test" : USER.email, name: null, role: body["role"] }];
      return method === "DELETE" ? new Response(null, { status: 204 }) : Response.json(members.at(-1));
    });
    await open("/console/people?tab=workspaces&workspace=red");
    await shows("Members of red");
    await shows("bob@shield.test");
    button("Delete red").click();
    await confirm();
    await shows("Title of workspace-in-use. Detail of workspace-in-use.");
    const role = find<HTMLSelectElement>('select[aria-label="Role of bob@shield.test"]');
    role.value = "contributor";
    role.dispatchEvent(new Event("change", { bubbles: true }));
    await vi.waitFor(() => expect(text()).toContain("Change"));
    expect(requests.some((request) => request.startsWith("PUT"))).toBe(false);
    button("Role of bob@shield.test: change to contributor").click();
    await shows("bob@shield.test is now contributor in red.");
    await type("Address of a user", "nobody@shield.test");
    const form = input("Address of a user").form!;
    submit(form);
    await shows("There is no account with this address.");
    await type("Address of a user", USER.email);
    submit(form);
    await vi.waitFor(() => expect(button(`Remove ${USER.email}`)).toBeTruthy());
    button("Remove bob@shield.test").click();
    await confirm();
    await shows("bob@shield.test does not belong to red any more.");
    expect(members.map((each) => each["id"])).toEqual([USER.id]);
    await type("Name", "red");
    submit(input("Name").form!);
    await shows("Title of workspace-exists");
  });

  it("sums tokens by user and model", async () => {
    handlers.push(({ path, query }) => {
      if (path !== "/admin/usage") return undefined;
      if (query.get("since") === "2026-11-30") return page();
      return page({ user_id: OTHER, user_name: MARKUP, model: "gpt", input_tokens: 1_234_567, output_tokens: 9 });
    });
    await open("/console/people?tab=usage");
    await shows("1,234,567");
    await type("First day (UTC)", "2026-11-30");
    await shows("Nobody has used tokens in this time.");
    expect(window.location.search).toBe("?tab=usage&since=2026-11-30");
    expect(document.querySelector("img, main script")).toBeNull();
  });
});

describe("the page of a user", () => {
  const address = `/console/people/${OTHER}`;
  let shown: JsonObject;
  let sessions: JsonObject[];
  const server: Handler = ({ method, path, body }) => {
    const rest = path.startsWith(`/admin/users/${OTHER}`) ? path.slice(`/admin/users/${OTHER}`.length) : null;
    if (rest === null) return path === "/admin/workspaces" ? page({ name: "default" }, { name: "red" }) : undefined;
    if (rest === "/sessions" && method === "GET") return page(...sessions);
    if (rest.startsWith("/sessions") && method === "DELETE") {
      sessions = rest === "/sessions" ? [] : sessions.filter(({ id }) => rest !== `/sessions/${String(id)}`);
      return new Response(null, { status: 204 });
    }
    if (rest === "/role" && body["role"] === "admin") return problem(409, "last-admin");
    if (rest === "/name" || rest === "/role") shown = { ...shown, ...body };
    if (rest === "/deactivate" || rest === "/activate") shown = { ...shown, active: rest === "/activate" };
    if (rest === "/unlock") shown = { ...shown, locked_until: null };
    if (rest === "/second-factor") {
      shown = { ...shown, second_factor: false };
      return new Response(null, { status: 204 });
    }
    if (rest === "/reset-link") return Response.json({ email: shown["email"], token: "t0ken", link: "https://shield.test/reset-password#token=t0ken", expires_at: "2026-12-03T10:00:00Z" }, { status: 201 });
    return Response.json(shown);
  };

  beforeEach(() => {
    shown = account();
    const times = { created_at: "2026-11-30T10:00:00Z", last_used_at: "2026-11-30T10:00:00Z", expires_at: "2026-11-30T18:00:00Z" };
    sessions = ["192.0.2.1", "192.0.2.2"].map((ip) => ({ id: `session-of-${ip}`, address: ip, user_agent: "curl/8", current: false, ...times }));
    handlers.push(server);
  });

  it("renames, and changes the role after a question, unless the server refuses", async () => {
    await open(address);
    await shows("Name and role");
    expect(find("h1").textContent).toBe("bob@shield.test");
    expect(find("nav [aria-current=page]").textContent).toBe("People");
    await type("Name", " Bob ");
    submit(input("Name").form!);
    await shows("The name is changed.");
    expect(shown["name"]).toBe("Bob");
    const form = input("Role").form!;
    for (const [role, outcome] of [
      ["contributor", "bob@shield.test is now contributor."],
      ["admin", "Title of last-admin. Detail of last-admin."],
    ] as const) {
      await choose("Role", role);
      submit(form);
      await shows(`Make bob@shield.test ${role}?`);
      await confirm();
      await shows(outcome);
    }
    expect(shown["role"]).toBe("contributor");
  });

  it("deactivates, activates, unlocks and removes the second factor", async () => {
    shown = account({ locked_until: "2999-01-01T00:00:00Z", second_factor: true });
    await open(address);
    await shows("Too many logins have failed.");
    button("Unlock").click();
    await shows("bob@shield.test is unlocked.");
    button("Remove the second factor").click();
    await confirm();
    await shows("The second factor of bob@shield.test is removed.");
    button("Deactivate").click();
    await shows("Deactivate this account?");
    expect(shown["active"]).toBe(true);
    await confirm();
    await shows("bob@shield.test is deactivated.");
    button("Activate").click();
    await shows("bob@shield.test can log in again.");
    expect(shown).toEqual(account());
  });

  it("ends one session or all, and makes a password link", async () => {
    await open(address);
    await shows("192.0.2.2");
    button("End the session of 192.0.2.1").click();
    await confirm();
    await shows("The session has ended.");
    expect(sessions.map(({ address: ip }) => ip)).toEqual(["192.0.2.2"]);
    button("Log out everywhere").click();
    await shows("All sessions of bob@shield.test end.");
    await confirm();
    await shows("There are no sessions.");
    button("Create a password link").click();
    await confirm();
    await shows("https://shield.test/reset-password#token=t0ken");
  });

  it("says that there is no such user", async () => {
    handlers.unshift(({ path }) => (path.startsWith("/admin/users/") ? problem(404, "account-not-found") : undefined));
    await open(address);
    await shows("Title of account-not-found");
    expect(text()).not.toContain("Name and role");
  });
});

describe("the page Audit", () => {
  const entry = { seq: 41, at: "2026-11-30T10:00:00Z", action: "role.change", outcome: "success", actor_id: USER.id, actor: USER.email, target: `user:${OTHER}`, address: "192.0.2.1", request_id: "r", details: { to: MARKUP }, prev_hash: "00", hash: "11" };
  const list: Handler = ({ path, query }) => {
    if (path !== "/admin/audit") return undefined;
    if (query.get("outcome") === "denied") return page();
    return query.get("cursor") ? page({ ...entry, seq: 40, action: MARKUP, actor: null, target: null }) : Response.json({ items: [entry], next_cursor: "41" });
  };

  it("searches with the filters of the address, and shows markup as text", async () => {
    handlers.push(list);
    await open("/console/audit?action=role.change&since=1h");
    await shows("192.0.2.1");
    const [first] = requests.filter((request) => request.startsWith("GET /admin/audit"));
    expect(first).toMatch(/^GET \/admin\/audit\?action=role\.change&since=[^&]+&limit=50&cursor=$/);
    button("Show more entries").click();
    await shows("2 entries");
    expect(text()).toContain(MARKUP);
    button("Entry 41").click();
    await vi.waitFor(() => expect(find("tbody .json").textContent).toContain(JSON.stringify(MARKUP)));
    expect(button("Entry 41").getAttribute("aria-expanded")).toBe("true");
    await type("On what", "user:x");
    submit();
    await vi.waitFor(() => expect(window.location.search).toBe("?action=role.change&target=user%3Ax&since=1h"));
    await choose("Outcome", "denied");
    await shows("No entry matches these filters.");
    button("Clear filters").click();
    await shows("192.0.2.1");
    expect(window.location.search).toBe("");
    await vi.waitFor(() => expect(input("On what").value).toBe(""));
    expect(find("tbody a").getAttribute("href")).toBe(`/console/audit?actor=${USER.id}`);
    expect(document.querySelector("img, main script")).toBeNull();
  });

  it.each([
    [{ intact: true, first_seq: 1, last_seq: 41, signed_through: 40, checkpoints: 2, broken: null }, "The log is intact. Verified: entries 1 to 41. 2 checkpoints sign them up to entry 40. The 1 after it is only chained."],
    [{ intact: true, first_seq: null, last_seq: null, signed_through: null, checkpoints: 0, broken: null }, "The log is intact. It has no entries."],
    [{ intact: false, first_seq: 1, last_seq: 41, signed_through: null, checkpoints: 0, broken: { seq: 42, reason: "its content does not fit its hash" } }, "The log is broken at entry 42. Entry 42: its content does not fit its hash."],
  ])("verifies the log: %o", async (result, expected) => {
    handlers.push(list, ({ path }) => (path === "/admin/audit/verify" ? Response.json(result) : undefined));
    await open("/console/audit");
    await shows("192.0.2.1");
    button("Verify the log").click();
    await vi.waitFor(() => expect(find("[role=status] .notice").textContent?.replace(".Verified", ". Verified").replace(".It", ". It").trim()).toContain(expected));
  });

  it("says why a verification or an export fails", async () => {
    handlers.push(({ path }) => (path === "/admin/audit/verify" ? problem(503, "database-unavailable") : undefined), list);
    await open("/console/audit");
    await shows("192.0.2.1");
    button("Verify the log").click();
    await shows("Title of database-unavailable");
    handlers.unshift(({ path }) => (path === "/admin/audit" ? problem(429, "too-many-requests") : undefined));
    button("Export as CSV").click();
    await shows("Title of too-many-requests");
  });

  it("exports what the filters select", async () => {
    handlers.push(list);
    const saved: string[] = [];
    vi.spyOn(HTMLAnchorElement.prototype, "click").mockImplementation(function (this: HTMLAnchorElement) {
      if (this.hasAttribute("download")) saved.push(this.getAttribute("href")!);
    });
    await open("/console/audit?actor=alice%40shield.test");
    await shows("192.0.2.1");
    button("Export as JSON lines").click();
    await vi.waitFor(() => expect(saved).toEqual(["/admin/audit/export?format=jsonl&actor=alice%40shield.test"]));
    vi.restoreAllMocks();
  });
});

describe("the page Settings", () => {
  it("shows values and sources, and of secrets only whether they are set", async () => {
    const setting = (name: string, changed: JsonObject): JsonObject => ({ name, value: null, secret: false, is_set: true, source: "default", ...changed });
    handlers.push(({ path }) =>
      path === "/admin/config"
        ? page(setting("CORS_ORIGINS", { value: [] }), setting("JWT_SECRET", { secret: true, source: "environment" }), setting("LOG_LEVEL", { value: MARKUP, source: ".env" }), setting("SMTP_URL", { secret: true, is_set: false }))
        : undefined,
    );
    await open("/console/settings");
    await shows("LOG_LEVEL");
    const rows = (): string[] => [...document.querySelectorAll("tbody tr")].map((row) => row.textContent ?? "");
    expect(rows()).toEqual(["CORS_ORIGINSNoneDefault", "JWT_SECRETSetEnvironment", `LOG_LEVEL${MARKUP}File .env`, "SMTP_URLNot setDefault"]);
    await type("Name", "secret");
    expect(rows()).toEqual(["JWT_SECRETSetEnvironment"]);
    await type("Name", "");
    find<HTMLInputElement>("input[type=checkbox]").click();
    await vi.waitFor(() => expect(rows().length).toBe(2));
    await type("Name", "nothing");
    await shows("No setting matches.");
    expect(document.querySelector("img, main script")).toBeNull();
  });
});

describe("the page Mine", () => {
  it("sets up a second factor with a QR code, and shows the recovery codes", async () => {
    handlers.push(({ method, path, body }) => {
      if (path === "/auth/mfa" && method === "GET") return Response.json({ enabled: false, recovery_codes_left: 0 });
      if (path === "/auth/mfa/setup") return Response.json({ secret: "JBSWY3DPEHPK3PXP", otpauth_uri: "otpauth://totp/Shield:alice?secret=JBSWY3DPEHPK3PXP" });
      if (path === "/auth/mfa/confirm" && body["code"] === "123456") return Response.json({ recovery_codes: ["aaaa-bbbb", "cccc-dddd"] });
      if (path === "/auth/sessions") return Response.json({ items: [], next_cursor: null });
      return undefined;
    });
    await open("/console/mine");
    await shows("Set up a second factor");
    button("Set up a second factor").click();
    await shows("Your password");
    await type("Your password", "correct horse");
    [...document.querySelectorAll("form")].at(-1)!.dispatchEvent(new Event("submit", { bubbles: true, cancelable: true }));
    await shows("JBSW Y3DP EHPK 3PXP");
    expect(find(".qr-code path").getAttribute("d")!.length).toBeGreaterThan(1_000);
    await type("Code", "123 456");
    [...document.querySelectorAll("form")].at(-1)!.dispatchEvent(new Event("submit", { bubbles: true, cancelable: true }));
    await shows("aaaa-bbbb");
  });
});

describe("the pages of links in mails", () => {
  it.each([
    ["/console/register", "/auth/register", { invitation: "t0ken", password: "correct horse" }, 201],
    ["/console/verify-email", "/auth/verify-email", { token: "t0ken", password: "correct horse" }, 201],
    ["/console/reset-password", "/auth/password/reset", { token: "t0ken", password: "correct horse" }, 204],
  ])("%s sends the token and the new password", async (address, path, expected, status) => {
    loggedIn = false;
    const bodies: JsonObject[] = [];
    handlers.push((request) => {
      if (request.path !== path) return undefined;
      bodies.push(request.body);
      if (bodies.length === 1) return problem(422, "password-rejected", [{ field: "body.password", message: "is easy to guess" }]);
      return status === 204 ? new Response(null, { status }) : Response.json(USER, { status });
    });
    await open(`${address}#token=t0ken`);
    await shows("New password, again");
    await vi.waitFor(() => expect(window.location.hash).toBe(""));
    await type("New password", "correct horse");
    await type("New password, again", "another");
    submit();
    await shows("This is not the same password");
    expect(bodies).toEqual([]);
    await type("New password, again", "correct horse");
    submit();
    await shows("is easy to guess");
    submit();
    await vi.waitFor(() => expect(find("a.button").textContent).toBe("Log in"));
    expect(bodies.at(-1)).toEqual(expected);
  });

  it("ask for the whole link if it has no token", async () => {
    loggedIn = false;
    await open("/console/reset-password");
    await shows("This link is not complete");
  });
});

describe("markup in all that a backend sends", () => {
  /** What must keep its form, so that the page shows the rest. */
  const KEPT = /(^|_)(at|id|status|role|outcome|active|until)$/;
  const poisoned = (value: unknown, name = ""): unknown => {
    if (typeof value === "string") return KEPT.test(name) ? value : MARKUP;
    if (Array.isArray(value)) return value.map((each) => poisoned(each, name));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, poisoned(each, key)]));
  };
  const at = "2026-11-30T10:00:00Z";
  const items = (...all: readonly JsonObject[]): JsonObject => ({ items: all, next_cursor: null });
  const session = { id: "s", address: "a", user_agent: "u", current: false, created_at: at, last_used_at: at, expires_at: at };
  const call = { id: "c", user_id: OTHER, workspace: "w", tool: "t", arguments: { url: "u" }, outcome: "failure", error: "e", job_id: JOB, started_at: at, duration_ms: 1 };
  const ended = job(JOB, { status: "failed", error: "e", result: { text: "t" } });
  const thread = { id: "t", owner_id: USER.id, workspace: "w", title: "t", created_at: at, updated_at: at };
  const run = { id: "r", thread_id: "t", workspace: "w", owner_id: USER.id, status: "failed", error: "e", usage: null, started_at: at, ended_at: at };
  const letter = { id: "5-0", reason: "r", fields: "f", created_at: at, closed_at: at, closed_how: "h", closed_by: "b", replayed_as: "a" };
  const group = { name: "n", lag: 0, pending: 0, last_delivered_id: "i", consumers: [{ name: "n", pending: 0, idle_ms: 0 }] };
  const instance = { name: "n", version: "v", started_at: at, reported_at: at, status: "degraded", problems: { redis: "p" }, not_ready: "n", open_streams: 0, agent_runs: 0, resident_bytes: 0 };
  const entry = { seq: 1, at, action: "a", outcome: "denied", actor_id: OTHER, actor: "a", target: "t", address: "a", request_id: "r", details: { to: "t" }, prev_hash: "p", hash: "h" };

  it.each<[address: string, answers: Record<string, unknown>]>([
    ["/console/", { "/api/jobs": items(ended), "/api/jobs/counts": {} }],
    [`/console/jobs/${JOB}`, { [`/api/jobs/${JOB}`]: ended, [`/api/jobs/${JOB}/history`]: items({ id: "1-0", event_id: "e", type: "t", occurred_at: at, data: { message: "m" }, metadata: { phase: "p" } }), "/api/calls": items(call) }],
    ["/console/agent?thread=t", { "/agent/threads": items(thread), "/agent/threads/t": { ...thread, messages: [{ id: "q", role: "user", content: "q" }, { id: "a", role: "assistant", content: "a" }], runs: [run], active_run_id: null, next_cursor: null, earlier: null } }],
    ["/console/stream?letters=all", { "/admin/operations": { instances: [instance], gaps: [{ after: "a", before: "b", reason: "r", entries: 1, noticed_at: at }], stream: { stream: "s", length: 1, entries_added: 1, first_id: "f", last_id: "l", group, open_dead_letters: 1 } }, "/admin/stream/dead-letters": items(letter) }],
    ["/console/people", { "/admin/users": items(account({ name: "n", memberships: [{ workspace: "w", role: "admin" }] })) }],
    ["/console/people?tab=invitations", { "/admin/users/invitations": items({ id: "i", email: "e", name: "n", role: "viewer", memberships: [{ workspace: "w", role: "viewer" }], invited_by: "b", created_at: at, expires_at: at }), "/admin/workspaces": items({ name: "w", members: 1, created_at: at }) }],
    ["/console/people?tab=workspaces", { "/admin/workspaces": items({ name: "w", members: 1, created_at: at }) }],
    [`/console/people/${OTHER}`, { [`/admin/users/${OTHER}`]: account({ name: "n", memberships: [{ workspace: "w", role: "admin" }] }), [`/admin/users/${OTHER}/sessions`]: items(session), "/admin/workspaces": items({ name: "w" }) }],
    ["/console/audit", { "/admin/audit": items(entry) }],
    ["/console/settings", { "/admin/config": items({ name: "n", value: "v", secret: false, is_set: true, source: "s" }) }],
    ["/console/mine", { "/auth/sessions": items(session), "/auth/mfa": { enabled: false, recovery_codes_left: 0 } }],
  ])("stays text on %s", async (address, answers) => {
    handlers.push(({ path }) => (path in answers ? Response.json(poisoned(answers[path])) : undefined));
    await open(address);
    await shows(MARKUP);
    // What is folded is shown, too.
    for (const details of document.querySelectorAll("details")) details.open = true;
    for (const each of document.querySelectorAll<HTMLElement>("[aria-expanded=false]")) each.click();
    await new Promise((resolve) => setTimeout(resolve));
    expect(document.querySelector("img, script, iframe, object, embed, [onerror], [onclick]")).toBeNull();
  });

  it.each(["/console/", "/console/audit"])("stays text in what %s says is wrong", async (address) => {
    handlers.push(({ path }) =>
      path === "/api/jobs" || path === "/admin/audit" ? Response.json({ type: "urn:x", title: MARKUP, status: 503, detail: MARKUP }, { status: 503 }) : undefined,
    );
    await open(address);
    await shows(MARKUP);
    expect(document.querySelector("img, script")).toBeNull();
  });

  it("leads nowhere but to pages of the console, whatever ids and addresses are", async () => {
    const hostile = ["javascript:window.hacked=1", "//elsewhere.test/", "../../auth/logout?everywhere=true", `"><img src=x onerror="window.hacked=1">`, "data:text/html,<script>1</script>"];
    handlers.push(({ path }) => {
      if (path === "/api/jobs") return page(...hostile.map((text) => job(text, { subject: text, kind: text, workspace: text, owner_name: text })));
      return path === "/api/jobs/counts" ? Response.json({}) : undefined;
    });
    await open("/console/");
    await vi.waitFor(() => expect(document.querySelectorAll("[data-row]").length).toBe(hostile.length));
    const links = [...document.querySelectorAll<HTMLAnchorElement>("main a")].map(({ href }) => new URL(href));
    expect(links.map(({ origin }) => origin)).toEqual(hostile.map(() => window.location.origin));
    const ids = links.map(({ pathname }) => /^\/console\/jobs\/([^/]+)$/.exec(pathname)?.[1]);
    expect(ids.map((id) => decodeURIComponent(id ?? "")).sort()).toEqual([...hostile].sort());
  });
});
