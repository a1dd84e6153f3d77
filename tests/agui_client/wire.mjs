// Inspects the bytes of a stream to the official client, and can cut the connection.

export class Cut extends Error {
  constructor() {
    super("the connection was cut");
  }
}

const FRAME_END = "\n\n";

// Returns null if the frame has no such field.
const fieldOf = (frame, name) => {
  const line = frame.split("\n").find((one) => one.startsWith(`${name}:`));
  return line === undefined ? null : line.slice(name.length + 1).trimStart();
};

// The client processes received data before the next iteration of the event loop.
const nextTurn = () => new Promise(setImmediate);

/**
 * Returns a response with the same bytes.
 *
 * Calls `hooks.arrives` with the id (or null) of each frame with data before the client sees it, and
 * `hooks.reaches` with the id of each frame without data. After `frames` frames with data, or `ids` of
 * them with an id, the connection breaks: after the client has applied them, which
 * `hooks.allApplied` reports, or with `abrupt` while it still does.
 */
export function watched(response, hooks, { frames = Infinity, ids = Infinity, abrupt = false } = {}) {
  const upstream = response.body.getReader();
  // One character per byte, so that indexes in the text equal indexes in the bytes.
  const decoder = new TextDecoder("latin1");
  let rest = "";
  let isCut = false;

  // Returns how many bytes of the chunk to forward.
  const look = (chunk) => {
    const before = rest.length;
    rest += decoder.decode(chunk);
    let start = 0;
    for (let end; !isCut && (end = rest.indexOf(FRAME_END, start)) >= 0; ) {
      const frame = rest.slice(start, end);
      start = end + FRAME_END.length;
      const id = fieldOf(frame, "id");
      if (fieldOf(frame, "data") === null) {
        if (id) hooks.reaches(id);
        continue;
      }
      hooks.arrives(id);
      frames -= 1;
      if (id) ids -= 1;
      isCut = frames <= 0 || ids <= 0;
    }
    rest = rest.slice(start);
    return isCut ? start - before : chunk.length;
  };

  const pull = async (controller) => {
    if (!isCut) {
      const { done, value } = await upstream.read();
      if (done) controller.close();
      else controller.enqueue(value.subarray(0, look(value)));
      return;
    }
    await upstream.cancel();
    if (!abrupt) {
      await nextTurn();
      hooks.allApplied();
    }
    controller.error(new Cut());
  };
  const body = new ReadableStream(
    { pull, cancel: (reason) => upstream.cancel(reason) },
    { highWaterMark: 0 },
  );
  return new Response(body, { status: response.status, headers: response.headers });
}
