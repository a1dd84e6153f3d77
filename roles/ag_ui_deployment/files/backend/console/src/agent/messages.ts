/** The messages of a conversation in AG-UI's form, and what of them a page shows. */

import { asArray, asObject, asText, type JsonObject } from "../lib/untrusted";

/** The metadata of a question that has been asked again: the ids of the messages of its earlier answers. */
export const SUPERSEDED = "hx.shield.superseded";

/** The backend accepts no more in one request. */
const MESSAGES_MAX = 2_000;

export interface Call {
  readonly id: string;
  readonly name: string;
  /** JSON as text; incomplete while the model writes it. */
  readonly args: string;
  readonly result: string | null;
}

export type Part =
  | { readonly kind: "text" | "reasoning"; readonly key: string; readonly text: string }
  | { readonly kind: "call"; readonly key: string; readonly call: Call };

/** A question and its answer. */
export interface Turn {
  readonly key: string;
  /** Null if the conversation does not begin with a question. */
  readonly question: string | null;
  readonly parts: readonly Part[];
  /** Parts of answers that another one has replaced. */
  readonly earlier: readonly Part[];
}

export function idOf(message: JsonObject): string {
  return asText(message["id"]) ?? "";
}

export function isQuestion(message: JsonObject): boolean {
  return message["role"] === "user";
}

/** The text of a message, whose content is a text or a list of parts. */
export function textOf(message: JsonObject): string {
  const { content } = message as { content?: unknown };
  if (typeof content === "string") return content;
  return asArray(content)
    .map((part) => asText(asObject(part)["text"]) ?? "")
    .join("\n");
}

/** Groups messages by question. */
export function turnsOf(messages: readonly JsonObject[]): Turn[] {
  const superseded = supersededIds(messages);
  const results = new Map(messages.filter(({ role }) => role === "tool").map((message) => [message["toolCallId"], textOf(message)]));
  const turns: { key: string; question: string | null; parts: Part[]; earlier: Part[] }[] = [];
  for (const message of messages) {
    const id = idOf(message);
    if (isQuestion(message)) {
      turns.push({ key: id, question: textOf(message), parts: [], earlier: [] });
      continue;
    }
    const parts = partsOf(message, results);
    if (parts.length === 0) continue;
    if (turns.length === 0) turns.push({ key: id, question: null, parts: [], earlier: [] });
    const turn = turns.at(-1)!;
    (superseded.has(id) ? turn.earlier : turn.parts).push(...parts);
  }
  return turns;
}

/** Adds what a run has written so far to the last turn; the other turns stay the same objects. */
export function withOutput(turns: readonly Turn[], output: readonly JsonObject[]): readonly Turn[] {
  const [written] = turnsOf(output);
  if (!written) return turns;
  const last = turns.at(-1);
  if (!last) return [written];
  return [...turns.slice(0, -1), { ...last, parts: [...last.parts, ...written.parts] }];
}

function partsOf(message: JsonObject, results: ReadonlyMap<unknown, string>): Part[] {
  const key = idOf(message);
  const text = textOf(message);
  const { role } = message;
  if (role === "reasoning") return text ? [{ kind: "reasoning", key, text }] : [];
  if (role !== "assistant") return [];
  const calls = callsOf(message).map(({ id, name, args }): Part => ({ kind: "call", key: id, call: { id, name, args, result: results.get(id) ?? null } }));
  return text ? [{ kind: "text", key, text }, ...calls] : calls;
}

function callsOf(message: JsonObject): Omit<Call, "result">[] {
  return asArray(message["toolCalls"]).map((entry) => {
    const call = asObject(entry);
    const { name, arguments: args } = asObject(call["function"]);
    return { id: idOf(call), name: asText(name) ?? "tool", args: typeof args === "string" ? args : "" };
  });
}

function supersededIds(messages: readonly JsonObject[]): ReadonlySet<unknown> {
  return new Set(messages.flatMap((message) => asArray(asObject(message["metadata"])[SUPERSEDED])));
}

/**
 * Marks the answer to the last question as superseded, so that the question can be asked again.
 * The backend keeps all messages; the mark is stored with the question.
 *
 * @returns The messages, or null if there is no question.
 */
export function askedAgain(messages: readonly JsonObject[]): JsonObject[] | null {
  const index = messages.findLastIndex(isQuestion);
  const question = messages[index];
  if (!question) return null;
  const metadata = asObject(question["metadata"]);
  const ids = [...asArray(metadata[SUPERSEDED]), ...messages.slice(index + 1).map(idOf)];
  const marked = { ...question, metadata: { ...metadata, [SUPERSEDED]: [...new Set(ids)] } };
  return messages.with(index, marked);
}

/** What the model is to read: without superseded answers, and without what no model gets. */
export function forModel(messages: readonly JsonObject[]): JsonObject[] {
  const superseded = supersededIds(messages);
  return messages
    .filter((message) => !superseded.has(message["id"]) && message["role"] !== "reasoning" && message["role"] !== "activity")
    .slice(-MESSAGES_MAX);
}
