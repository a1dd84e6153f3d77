import { describe, expect, it } from "vitest";
import type { Job } from "../src/api/types";
import type { JsonObject } from "../src/lib/untrusted";
import { applyEvent, type LiveJob, mergeListed } from "../src/live/live-job";
import { delta, JOB, runError, runFinished, runStarted, snapshot, toolCall, totals } from "./events";

function folded(events: readonly JsonObject[], start?: LiveJob): LiveJob {
  return events.reduce<LiveJob | undefined>((job, event) => applyEvent(job, JOB, event, 9_999), start)!;
}

function listed(changed: Partial<Job> = {}): Job {
  return {
    id: JOB,
    owner_id: "7f1d0a0e-6a3c-4f70-8f61-3d2f6a1c0001",
    owner_name: "Alice",
    subject: "https://example.org/",
    workspace: "default",
    kind: "crawl",
    status: "running",
    percent: 10,
    error: null,
    result: null,
    created_at: "2026-11-30T10:00:00Z",
    updated_at: "2026-11-30T10:00:05Z",
    completed_at: null,
    ...changed,
  } as Job;
}

describe("events of a job", () => {
  it("become a row with state, progress, phase, counters and the last event", () => {
    const job = folded([
      runStarted({ at: 1_000, workspace: "red" }),
      ...toolCall("c1", "crawl_web", { url: "https://example.org/", max_pages: 3 }, { at: 1_000 }),
      snapshot({ kind: "crawl", status: "queued", latest: { url: "https://example.org/other" } }, { at: 1_100, type: "job:queued" }),
      snapshot(
        { kind: "crawl", status: "running", percent: 40, chunks_processed: 4, chunks_total: 10, latest: { pages_crawled: 1, pages_total: 3, message: "Crawled page 1" } },
        { at: 2_000, workspace: "red" },
      ),
      totals({ entities_extracted: 7, latest: {} }, { at: 2_500, workspace: "red" }),
    ]);
    expect(job).toMatchObject({
      kind: "crawl",
      subject: "https://example.org/",
      workspace: "red",
      status: "running",
      percent: 40,
      phase: "Extracting entities",
      lastEvent: "Extracting entities",
      lastEventAt: 2_500,
      createdAt: 1_000,
      endedAt: null,
    });
    expect(job.counters).toEqual([
      { label: "pages", value: 1, total: 3 },
      { label: "chunks", value: 4, total: 10 },
      { label: "entities", value: 7, total: null },
    ]);
  });

  it("apply deltas to the activity, also twice", () => {
    const change = delta({ percent: 60, latest: { message: "more" } }, { at: 3_000 });
    const job = folded([snapshot({ kind: "crawl", status: "running", percent: 40 }), change, change]);
    expect(job).toMatchObject({ kind: "crawl", status: "running", percent: 60, lastEvent: "more" });
  });

  it("never go back to an earlier state or a lower progress", () => {
    const job = folded([snapshot({ status: "running", percent: 60 }, { at: 2_000 }), snapshot({ status: "queued", percent: 10 }, { at: 1_000 })]);
    expect(job).toMatchObject({ status: "running", percent: 60, lastEventAt: 2_000 });
  });

  it("keep counters that a later event does not name", () => {
    const job = folded([snapshot({ status: "running", latest: { pages_crawled: 2 } }), snapshot({ status: "running", latest: {} })]);
    expect(job.counters).toEqual([{ label: "pages", value: 2, total: null }]);
  });

  it.each([
    [runFinished("success", { at: 5_000 }), { status: "completed", percent: 100, error: null }],
    [runFinished("cancelled", { at: 5_000 }), { status: "cancelled", percent: 40, error: null }],
    [runError("the site did not answer", { at: 5_000 }), { status: "failed", percent: 40, error: "the site did not answer" }],
  ])("end with the run", (end, expected) => {
    const job = folded([snapshot({ status: "running", percent: 40 }), end]);
    expect(job).toMatchObject({ ...expected, endedAt: 5_000 });
  });

  it("take the first end", () => {
    expect(folded([runError("broken", { at: 5_000 }), runFinished("success", { at: 6_000 })])).toMatchObject({ status: "failed", endedAt: 5_000 });
  });

  it("survive values of any shape", () => {
    const strange: JsonObject[] = [
      { type: "ACTIVITY_SNAPSHOT", activityType: "hx.shield.job", messageId: 7, content: null, timestamp: "x", metadata: [] },
      { type: "ACTIVITY_SNAPSHOT", activityType: "hx.shield.job", messageId: "__proto__", content: { status: 3, percent: "many", kind: {} } },
      { type: "ACTIVITY_DELTA", activityType: "hx.shield.job", messageId: "a", patch: [{ op: "add", path: "/__proto__", value: { status: "failed" } }, null, 3] },
      { type: "TOOL_CALL_ARGS", delta: "{not json" },
      { type: "RUN_FINISHED", outcome: "success" },
      { type: 9 },
      {},
    ];
    const job = folded(strange);
    expect(job.status).toBe("completed");
    expect(({} as Record<string, unknown>)["status"]).toBeUndefined();
  });

  it("shorten texts, and never more than needed", () => {
    const job = folded([snapshot({ status: "running", latest: { message: "m".repeat(10_000), query: "q" } })]);
    expect(job.lastEvent!.length).toBe(300);
    expect(job.subject).toBe("q");
  });
});

describe("the list", () => {
  it("adds what events do not name, and does not set the state back", () => {
    const live = folded([runStarted({ at: 1_000 }), snapshot({ kind: "crawl", status: "running", percent: 70 }), runFinished()]);
    const job = mergeListed(live, listed());
    expect(job).toMatchObject({ ownerName: "Alice", subject: "https://example.org/", status: "completed", percent: 100, listed: true });
    expect(job.createdAt).toBe(Date.parse("2026-11-30T10:00:00Z"));
  });

  it("ends a job whose end was missed", () => {
    const live = folded([snapshot({ status: "running", percent: 70 })]);
    const job = mergeListed(live, listed({ status: "failed", error: "broken", completed_at: "2026-11-30T10:01:00Z" }));
    expect(job).toMatchObject({ status: "failed", error: "broken", endedAt: Date.parse("2026-11-30T10:01:00Z"), percent: 70 });
  });

  it("works without the fields of a newer backend", () => {
    const { owner_name: _, subject: __, ...old } = listed() as Job & { owner_name?: unknown; subject?: unknown };
    expect(mergeListed(undefined, old as Job)).toMatchObject({ ownerName: null, subject: null, status: "running" });
  });

  it("keeps the time of creation when the run is introduced again after a reconnect", () => {
    const job = folded([runStarted({ at: 4_000 })], mergeListed(undefined, listed()));
    expect(job.createdAt).toBe(Date.parse("2026-11-30T10:00:00Z"));
  });
});
