import { describe, expect, it } from "vitest";
import { askedAgain, forModel, SUPERSEDED, turnsOf, withOutput } from "../src/agent/messages";
import type { JsonObject } from "../src/lib/untrusted";

const question = (id: string, content: unknown = `question ${id}`): JsonObject => ({ id, role: "user", content });
const answer = (id: string, content = `answer ${id}`): JsonObject => ({ id, role: "assistant", content });
const call = (id: string): JsonObject => ({ id, type: "function", function: { name: "lightrag_query", arguments: "{}" } });
const calling = (id: string, ...ids: string[]): JsonObject => ({ id, role: "assistant", toolCalls: ids.map(call) });
const result = (id: string): JsonObject => ({ id: `${id}:result`, role: "tool", toolCallId: id, content: `result ${id}` });
const text = (id: string, content = `answer ${id}`) => ({ kind: "text", key: id, text: content });

describe("the turns of a conversation", () => {
  it("have a question each, and the texts, the reasoning and the calls of its answer", () => {
    const thought = { id: "t", role: "reasoning", content: "hm" };
    expect(turnsOf([question("q1"), thought, calling("a1", "c1", "c2"), result("c1"), answer("a2"), question("q2")])).toEqual([
      {
        key: "q1",
        question: "question q1",
        parts: [
          { kind: "reasoning", key: "t", text: "hm" },
          { kind: "call", key: "c1", call: { id: "c1", name: "lightrag_query", args: "{}", result: "result c1" } },
          { kind: "call", key: "c2", call: { id: "c2", name: "lightrag_query", args: "{}", result: null } },
          text("a2"),
        ],
        earlier: [],
      },
      { key: "q2", question: "question q2", parts: [], earlier: [] },
    ]);
  });

  it("begin with an answer where the question is not there, and show what other clients store", () => {
    const parts = question("q1", [{ type: "text", text: "one" }, { type: "text", text: "two" }, 7]);
    const turns = turnsOf([{ id: "s", role: "system", content: "secret" }, answer("a0"), parts, { role: "unknown" }, {}]);
    expect(turns.map((turn) => [turn.question, turn.parts])).toEqual([
      [null, [text("a0")]],
      ["one\ntwo\n", []],
    ]);
  });

  it("grow by what a run writes, and the others stay the same objects", () => {
    const turns = turnsOf([question("q1"), answer("a1"), question("q2")]);
    const grown = withOutput(turns, [answer("a2")]);
    expect(grown[0]).toBe(turns[0]);
    expect(grown[1]).toEqual({ ...turns[1], parts: [text("a2")] });
    expect(withOutput(turns, [])).toBe(turns);
    expect(withOutput([], [answer("a1")])).toEqual(turnsOf([answer("a1")]));
  });
});

describe("a question that is asked again", () => {
  const once = [question("q1"), answer("a1"), question("q2"), calling("a2", "c1"), result("c1"), answer("a3")];

  it("keeps its earlier answers apart, and the model does not read them", () => {
    const again = askedAgain(once)!;
    const [, turn] = turnsOf([...again, answer("a4")]);
    expect(turn!.parts).toEqual([text("a4")]);
    expect(turn!.earlier.map(({ key }) => key)).toEqual(["c1", "a3"]);
    expect(forModel(again).map(({ id }) => id)).toEqual(["q1", "a1", "q2"]);
    // All messages stay: the backend keeps them, too.
    expect(again.map(({ id }) => id)).toEqual(once.map(({ id }) => id));
  });

  it("can be asked a third time, and keeps its other metadata", () => {
    const noted = once.map((message) => (message["id"] === "q2" ? { ...message, metadata: { own: 1 } } : message));
    const thrice = askedAgain([...askedAgain(noted)!, answer("a4")])!;
    expect(thrice[2]!["metadata"]).toEqual({ own: 1, [SUPERSEDED]: ["a2", "c1:result", "a3", "a4"] });
  });

  it("is none where there is no question", () => {
    expect(askedAgain([answer("a1")])).toBeNull();
  });
});

it("sends the model neither reasoning nor more messages than the backend accepts", () => {
  const many = Array.from({ length: 2_500 }, (_, index) => answer(`a${index}`));
  expect(forModel([{ id: "t", role: "reasoning", content: "hm" }, ...many]).map(({ id }) => id)).toEqual(many.slice(500).map(({ id }) => id));
});
