/** The answer to POST /agent, as a source of a feed: the stream of the run that the request began. */

import { createParser } from "eventsource-parser";
import type { Source } from "../live/feed";

const OPEN = 1;
const CLOSED = 2;

export class ResponseSource implements Source {
  readyState = OPEN;
  onopen: (() => void) | null = null;
  onerror: (() => void) | null = null;
  readonly #listeners = new Map<string, (event: MessageEvent<string>) => void>();
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;

  constructor(body: ReadableStream<Uint8Array>) {
    this.#reader = body.getReader();
    // When the feed has set its listeners.
    queueMicrotask(() => void this.#read());
  }

  addEventListener(type: string, listener: (event: MessageEvent<string>) => void): void {
    this.#listeners.set(type, listener);
  }

  close(): void {
    this.readyState = CLOSED;
    // The run goes on without this reader.
    this.#reader.cancel().catch(() => undefined);
  }

  async #read(): Promise<void> {
    const parser = createParser({
      onEvent: ({ event = "message", data, id = "" }) => {
        this.#listeners.get(event)?.({ data, lastEventId: id } as MessageEvent<string>);
      },
    });
    const decoder = new TextDecoder();
    this.onopen?.();
    try {
      for (;;) {
        const { done, value } = await this.#reader.read();
        if (done) break;
        parser.feed(decoder.decode(value, { stream: true }));
      }
    } catch {
      // The connection broke: the same as its end.
    }
    this.readyState = CLOSED;
    this.onerror?.();
  }
}
