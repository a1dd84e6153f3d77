import { describe, expect, it } from "vitest";
import { hasEnded } from "../src/api/types";
import { JobStore } from "../src/live/job-store";
import { runFinished, runStarted, snapshot } from "./events";

/** A store whose frames are run by the test. */
function storeWithFrames(max?: number) {
  const frames: (() => void)[] = [];
  const store = new JobStore({ request: (run) => frames.push(run), ...(max && { max }) });
  return { store, frame: () => frames.splice(0).forEach((run) => run()), frames };
}

describe("the store of jobs", () => {
  it("tells its listeners once per frame, however many events come", () => {
    const { store, frame, frames } = storeWithFrames();
    let told = 0;
    store.subscribe(() => (told += 1));
    for (let index = 0; index < 500; index += 1) store.apply(snapshot({ status: "running", percent: index / 10 }, { job: `j${index % 50}` }));
    expect([told, frames.length]).toEqual([0, 1]);
    frame();
    expect(told).toBe(1);
    store.apply(snapshot({ status: "running" }, { job: "j1" }));
    frame();
    expect(told).toBe(2);
  });

  it("selects the newest first, also after jobs have come in another order", () => {
    const { store } = storeWithFrames();
    for (const at of [300, 100, 200]) store.apply(runStarted({ job: `j${at}`, at }));
    expect(store.select(() => true).map(({ id }) => id)).toEqual(["j300", "j200", "j100"]);
    store.apply(runStarted({ job: "j250", at: 250 }));
    store.remove("j200");
    expect(store.select(() => true).map(({ id }) => id)).toEqual(["j300", "j250", "j100"]);
  });

  it("replaces only the job that changes, so that other rows need not be rendered", () => {
    const { store } = storeWithFrames();
    store.apply(runStarted({ job: "a" }));
    store.apply(runStarted({ job: "b" }));
    const before = store.get("a");
    store.apply(snapshot({ status: "running" }, { job: "b" }));
    expect(store.get("a")).toBe(before);
  });

  it("ignores events outside all runs", () => {
    const { store } = storeWithFrames();
    expect(store.apply({ type: "CUSTOM", name: "hx.shield.worker.started", metadata: {} })).toBeNull();
    expect(store.size).toBe(0);
  });

  it("is bounded: jobs that have ended go first", () => {
    const { store } = storeWithFrames(20);
    for (let index = 0; index < 20; index += 1) {
      store.apply(runStarted({ job: `j${index}`, at: index }));
      if (index < 4) store.apply(runFinished("success", { job: `j${index}`, at: 100 + index }));
    }
    store.apply(runStarted({ job: "new", at: 50 }));
    expect(store.size).toBe(19);
    expect(store.get("j0")).toBeUndefined();
    expect(store.get("j1")).toBeUndefined();
    expect([...store.values()].filter((job) => hasEnded(job.status)).map(({ id }) => id)).toEqual(["j2", "j3"]);
  });
});
