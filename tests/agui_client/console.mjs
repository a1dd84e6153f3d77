// What is printed, by whom: the official client prints a warning where it puts up with a fault.
import { AsyncLocalStorage } from "node:async_hooks";
import { format } from "node:util";

import { Cut } from "./wire.mjs";

const current = new AsyncLocalStorage();
let stray = () => {};

function note(...values) {
  // A cut of our own making is reported like any broken connection.
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

/** What is printed while `run` is at work, by it alone. */
export async function printedDuring(run) {
  const lines = [];
  await current.run(lines, run);
  return lines;
}

/** Tell `listener` of every line that is printed by nobody in particular. */
export function strayLines(listener) {
  stray = listener;
}
