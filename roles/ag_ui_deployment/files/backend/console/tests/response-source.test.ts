import { describe, expect, it, vi } from "vitest";
import { ResponseSource } from "../src/agent/response-source";
import { framesOf, runStarted, textDelta } from "./agent-events";

function opened() {
  let controller!: ReadableStreamDefaultController<Uint8Array>;
  const cancelled = vi.fn();
  const body = new ReadableStream<Uint8Array>({
    start: (given) => {
      controller = given;
    },
    cancel: cancelled,
  });
  const source = new ResponseSource(body);
  const seen: string[] = [];
  source.onopen = () => seen.push("open");
  source.onerror = () => seen.push(`error ${source.readyState}`);
  for (const type of ["RUN_STARTED", "TEXT_MESSAGE_CONTENT"]) {
    source.addEventListener(type, ({ data, lastEventId }) => seen.push(`${lastEventId} ${data}`));
  }
  return { source, controller, cancelled, seen };
}

const settled = (): Promise<void> => new Promise((resolve) => setTimeout(resolve));
const started = runStarted("r1");
const delta = textDelta("m1", "häi 🦈");

describe("the answer to the request that begins a run", () => {
  it("is read as an event stream, wherever it is cut into pieces", async () => {
    const { controller, seen } = opened();
    const bytes = new TextEncoder().encode(`retry: 1000\n\n: keep-alive\n\n${framesOf([started, delta])}`);
    for (const byte of bytes) controller.enqueue(Uint8Array.of(byte));
    await settled();
    expect(seen).toEqual(["open", `1-0 ${JSON.stringify(started)}`, `2-0 ${JSON.stringify(delta)}`]);
  });

  it.each(["close", "error"] as const)("ends as a stream that has to be opened again: %s", async (how) => {
    const { controller, seen } = opened();
    if (how === "close") controller.close();
    else controller.error(new TypeError("network error"));
    await settled();
    expect(seen).toEqual(["open", "error 2"]);
  });

  it("is read no further when it is closed", async () => {
    const { source, cancelled } = opened();
    await settled();
    source.close();
    await settled();
    expect(cancelled).toHaveBeenCalledOnce();
    expect(source.readyState).toBe(2);
  });
});
