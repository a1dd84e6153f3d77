// Captures console output by client: the official client prints a warning when it tolerates an error.
import { AsyncLocalStorage } from "node:async_hooks";
import { format } from "node:util";

import { Cut } from "./wire.mjs";

const current = new AsyncLocalStorage();
let stray = () => {};

function note(...values) {
  // The client reports an intentional cut like any broken connection.
  if (values.some((value) => value instanceof Cut)) return;
  const line = format(...values);
  const lines = current.getStore();
  if (lines) lines.push(line);
  else stray([line]);
}

for (const name of ["debug", "error", "info", "log", "trace", "warn"]) console[name] = note;
process.on("warning", note);
process.on("unhandledRejection", note);
process.on("uncaughtException", note);

/** Returns the lines that `run` prints. */
export async function printedDuring(run) {
  const lines = [];
  await current.run(lines, run);
  return lines;
}

/** Calls `listener` with every line that is printed outside printedDuring(). */
export function strayLines(listener) {
  stray = listener;
}
