import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { JsonObject } from "../src/lib/untrusted";
import { gap, runFinished, runStarted, snapshot } from "./events";

const USER = { id: "7f1d0a0e-6a3c-4f70-8f61-3d2f6a1c0001", email: "alice@shield.test", role: "viewer" };

interface FakeJob {
  id: string;
  status: string;
  created_at: string;
  [name: string]: unknown;
}

/** The backend as the model sees it: its jobs, the requests that were sent, the streams that were opened. */
class FakeBackend {
  jobs: FakeJob[] = [];
  permissions: JsonObject = { matrix: {}, tools: {}, everywhere: false, workspaces: [] };
  failing = false;
  readonly requests: string[] = [];
  readonly streams: FakeStream[] = [];

  answer(request: Request): Response {
    const { pathname, searchParams } = new URL(request.url);
    this.requests.push(pathname + new URL(request.url).search);
    if (this.failing) return this.problem(503, "database-unavailable");
    if (pathname === "/auth/me") return Response.json(USER);
    if (pathname === "/api/permissions") return Response.json(this.permissions);
    if (pathname === "/api/jobs/counts") return Response.json({ queued: 0, running: this.jobs.length });
    if (pathname === "/api/jobs") {
      const status = searchParams.get("status");
      const from = Number(searchParams.get("cursor") ?? 0);
      const limit = Number(searchParams.get("limit"));
      const found = this.jobs.filter((job) => !status || job.status === status);
      const more = found.length > from + limit;
      return Response.json({ items: found.slice(from, from + limit), next_cursor: more ? String(from + limit) : null });
    }
    const job = this.jobs.find(({ id }) => pathname === `/api/jobs/${id}`);
    return job ? Response.json(job) : this.problem(404, "job-not-found");
  }

  problem(status: number, slug: string): Response {
    return Response.json({ type: `urn:shield-ag-ui:problem:${slug}`, title: slug, status, detail: "" }, { status });
  }

  asked(path: string): number {
    return this.requests.filter((request) => request.startsWith(path)).length;
  }
}

class FakeStream extends EventTarget {
  readyState = 0;
  onopen: (() => void) | null = null;
  onerror: (() => void) | null = null;

  constructor(readonly url: string) {
    super();
    backend.streams.push(this);
  }

  close(): void {
    this.readyState = 2;
  }

  send(id: string, event: JsonObject): void {
    this.dispatchEvent(Object.assign(new Event(event["type"] as string), { data: JSON.stringify(event), lastEventId: id }));
  }
}

function job(id: string, changed: Partial<FakeJob> = {}): FakeJob {
  return {
    id,
    owner_id: USER.id,
    owner_name: "Alice",
    subject: `about ${id}`,
    workspace: "default",
    kind: "crawl",
    status: "running",
    percent: null,
    error: null,
    result: null,
    created_at: "2026-11-30T10:00:00Z",
    updated_at: "2026-11-30T10:00:00Z",
    completed_at: null,
    ...changed,
  };
}

let backend: FakeBackend;

/** The modules anew for each test: the session is one per document. */
async function started() {
  const { LiveModel } = await import("../src/live/model");
  const { loadSession } = await import("../src/session");
  const { NO_FILTERS } = await import("../src/live/filters");
  await loadSession();
  const model = new LiveModel();
  model.start();
  await model.setFilters(NO_FILTERS);
  const stream = (): FakeStream => backend.streams.at(-1)!;
  stream().onopen?.();
  await vi.advanceTimersByTimeAsync(0);
  return { model, stream, ids: () => model.rows(Date.now()).map(({ id }) => id) };
}

beforeEach(() => {
  backend = new FakeBackend();
  vi.resetModules();
  vi.useFakeTimers();
  vi.stubGlobal("window", Object.assign(new EventTarget(), { location: { origin: "http://shield.test" } }));
  vi.stubGlobal("requestAnimationFrame", (run: () => void) => run());
  vi.stubGlobal("fetch", (request: Request) => Promise.resolve(backend.answer(request)));
  vi.stubGlobal("EventSource", FakeStream);
});

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

describe("the page Live", () => {
  it("joins the list and the stream", async () => {
    backend.jobs = [job("old", { status: "completed", completed_at: "2026-11-30T10:01:00Z" }), job("running")];
    const { model, stream, ids } = await started();
    stream().send("1-0", snapshot({ status: "running", percent: 55 }, { job: "running", at: Date.parse("2026-11-30T10:02:00Z") }));
    expect(ids().sort()).toEqual(["old", "running"]);
    expect(model.jobs.get("running")).toMatchObject({ percent: 55, ownerName: "Alice", subject: "about running" });
  });

  it("finds a job that has ended between the list and the stream", async () => {
    const { ids } = await started();
    expect(ids()).toEqual([]);
    backend.jobs = [job("short", { status: "failed", error: "broken" })];
    await vi.advanceTimersByTimeAsync(2_000);
    expect(ids()).toEqual(["short"]);
  });

  it("asks for the owner and the subject of a job that it knows from the stream only", async () => {
    const { model, stream } = await started();
    stream().send("1-0", runStarted({ job: "new" }));
    expect(model.jobs.get("new")).toMatchObject({ subject: null, listed: false });
    backend.jobs = [job("new")];
    await vi.advanceTimersByTimeAsync(2_000);
    expect(model.jobs.get("new")).toMatchObject({ subject: "about new", listed: true });
  });

  it("gives up on a job that cannot be read, and asks for many new jobs at once", async () => {
    const { model, stream } = await started();
    const before = backend.requests.length;
    for (let index = 0; index < 100; index += 1) stream().send(`1-${index}`, runStarted({ job: `j${index}` }));
    backend.jobs = Array.from({ length: 99 }, (_, index) => job(`j${index}`));
    await vi.advanceTimersByTimeAsync(60_000);
    expect(backend.asked("/api/jobs/j99")).toBe(3);
    expect(model.jobs.get("j99")).toMatchObject({ listed: false });
    expect(backend.requests.length - before).toBeLessThan(20);
  });

  it("shows a gap, and learns from the list which jobs have ended meanwhile", async () => {
    backend.jobs = [job("a"), job("b"), job("c")];
    const { model, stream } = await started();
    stream().send("1-0", snapshot({ status: "running" }, { job: "a" }));
    backend.jobs = [job("a", { status: "failed", error: "broken" }), job("b")];
    stream().send("", gap({ after: "1-0", before: "9-0", reason: "trimmed" }));
    await vi.advanceTimersByTimeAsync(0);
    expect(model.gaps.value).toMatchObject([{ reason: "trimmed" }]);
    expect(model.jobs.get("a")).toMatchObject({ status: "failed", error: "broken" });
    expect(model.jobs.get("b")!.status).toBe("running");
    expect(model.jobs.get("c")).toBeUndefined();
    model.dismissGap(model.gaps.value[0]!.key);
    expect(model.gaps.value).toEqual([]);
  });

  it("leaves out ended jobs below the end of what is listed, until more is loaded", async () => {
    backend.jobs = Array.from({ length: 150 }, (_, index) =>
      job(`j${index}`, { status: "completed", created_at: new Date(Date.UTC(2026, 10, 30) - index * 1_000).toISOString() }),
    );
    const { model, stream, ids } = await started();
    expect(ids().length).toBe(100);
    const at = Date.UTC(2026, 10, 30) - 140_000;
    stream().send("1-0", runStarted({ job: "j140", at }));
    stream().send("1-1", runFinished("success", { job: "j140", at }));
    expect(ids()).not.toContain("j140");
    await model.loadMore();
    expect(ids().length).toBe(150);
    expect(model.listing.value).toMatchObject({ nextCursor: null, loading: false });
  });

  it("says if the list cannot be read, and recovers", async () => {
    backend.failing = true;
    const { LiveModel } = await import("../src/live/model");
    const { NO_FILTERS } = await import("../src/live/filters");
    const model = new LiveModel();
    await model.setFilters(NO_FILTERS);
    expect(model.listing.value).toMatchObject({ loading: false, error: { problem: { slug: "database-unavailable" } } });
    backend.failing = false;
    backend.jobs = [job("a")];
    await model.reload();
    expect(model.listing.value.error).toBeNull();
    expect(model.rows(0).map(({ id }) => id)).toEqual(["a"]);
  });

  it("reads the list again when the connection is resumed", async () => {
    const { model, stream, ids } = await started();
    backend.jobs = [job("ended", { status: "completed" })];
    backend.failing = true;
    await model.reload();
    expect(ids()).toEqual([]);
    backend.failing = false;
    stream().onerror?.();
    stream().onopen?.();
    await vi.advanceTimersByTimeAsync(0);
    expect(model.listing.value.error).toBeNull();
    expect(ids()).toEqual(["ended"]);
  });

  it("keeps the counts while they cannot be read, and with another state as filter", async () => {
    const { NO_FILTERS } = await import("../src/live/filters");
    backend.jobs = [job("a")];
    const { model } = await started();
    const counts = { queued: 0, running: 1, completed: 0, failed: 0, cancelled: 0 };
    expect(model.counts.value).toEqual(counts);
    backend.failing = true;
    await model.setFilters({ ...NO_FILTERS, status: "failed" });
    expect(model.counts.value).toEqual(counts);
    await model.setFilters({ ...NO_FILTERS, kind: "crawl" });
    expect(model.counts.value).toBeNull();
  });

  it("begins anew when the permissions of the user have changed", async () => {
    backend.jobs = [job("a")];
    const { model, stream } = await started();
    stream().send("5-0", snapshot({ status: "running" }, { job: "a" }));
    backend.jobs = [];
    backend.permissions = { ...backend.permissions, workspaces: [{ workspace: "red", role: "viewer", permissions: {} }] };
    stream().onerror?.();
    stream().onopen?.();
    await vi.advanceTimersByTimeAsync(0);
    expect(stream().url).toBe("/events");
    expect(backend.streams.length).toBe(2);
    expect(model.jobs.size).toBe(0);
  });

  it("keeps everything when the connection is resumed", async () => {
    backend.jobs = [job("a")];
    const { model, stream, ids } = await started();
    stream().send("5-0", snapshot({ status: "running" }, { job: "a" }));
    stream().onerror?.();
    stream().onopen?.();
    await vi.advanceTimersByTimeAsync(0);
    expect(backend.streams.length).toBe(1);
    expect(ids()).toEqual(["a"]);
    expect(model.feed.state.value).toMatchObject({ kind: "connected", resumed: {} });
  });
});
