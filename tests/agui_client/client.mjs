// A user interface: an agent of the official client, with the state that it needs to resume.
import { printedDuring } from "./console.mjs";
import { Cut, watched } from "./wire.mjs";

const GAP = "hx.shield.gap";
const STREAM = { headers: { "Content-Type": "text/event-stream" } };

// The official agent POSTs a request for every run; the run of a job, or an earlier run of the agent,
// is read with GET.
const newAgent = async (version) => {
  const { HttpAgent, runHttpRequest, transformHttpEventStream } = await import(PACKAGES[version]);
  class ReadingAgent extends HttpAgent {
    sends = false;

    requestInit(input) {
      if (this.sends) return super.requestInit(input);
      const headers = { ...this.headers, Accept: "text/event-stream" };
      return { method: "GET", headers, signal: this.abortController.signal };
    }

    connect(input) {
      const request = () => this.fetch(`${this.url}/connect`, this.requestInit(input));
      return transformHttpEventStream(runHttpRequest(request));
    }
  }
  return new ReadingAgent({ url: "" });
};

const PACKAGES = {
  "1.0.0": "@ag-ui/client",
  "0.0.59": "@ag-ui/client-0.0.59",
  "0.0.55": "@ag-ui/client-0.0.55",
};

const NOTHING = { id: null, messages: [], state: {} };

export class Client {
  #agent;

  // The last event id whose frames are all applied, and the state at that id. A record may consist of
  // several frames, the last of which has the id; frames after that id are sent again.
  #safe = NOTHING;

  #version;

  constructor(version) {
    this.#version = version;
  }

  async follow(stream, joined) {
    this.#agent ??= await newAgent(this.#version);
    const held = { ids: [], outcome: null, result: null, error: null, pending: [], failure: null };
    const request = stream.run ?? stream.join;
    if (request) this.#prepare(request);
    this.#agent.sends = Boolean(request);
    this.#connect(stream, held);
    held.printed = await printedDuring(async () => {
      try {
        const { runId, tools, forwardedProps } = request ?? {};
        const attach = stream.join ? "connectAgent" : "runAgent";
        await this.#agent[attach]({ runId, tools, forwardedProps }, this.#subscriber(held, joined));
        this.#applied();
      } catch (error) {
        if (error instanceof Cut) return;
        held.failure = { message: error.message, status: error.status, payload: error.payload };
      }
    });
    if (!held.outcome) this.#goBack();
    const { messages, state } = this.#agent;
    return { ...held, messages, state, last_event_id: this.#safe.id };
  }

  // Messages of the user are kept whatever the outcome of the run is.
  #prepare({ threadId, messages, state }) {
    this.#agent.threadId = threadId;
    this.#agent.addMessages(messages);
    if (state !== undefined) this.#agent.setState(state);
    this.#safe = structuredClone({ id: null, messages: this.#agent.messages, state: this.#agent.state });
  }

  #connect(stream, held) {
    const id = stream.last_event_id ?? this.#safe.id;
    this.#arriving = [];
    this.#latest = null;
    this.#agent.url = stream.url ?? "";
    this.#agent.headers = {
      ...(stream.token && { Authorization: `Bearer ${stream.token}` }),
      ...(id && { "Last-Event-ID": id }),
    };
    this.#agent.fetch = async (url, init) => {
      const response = stream.body === undefined ? await fetch(url, init) : new Response(stream.body, STREAM);
      if (!response.ok) return response;
      const hooks = {
        arrives: (frameId) => {
          held.ids.push(frameId);
          this.#arriving.push(frameId);
        },
        reaches: (position) => {
          if (this.#arriving.length) this.#arriving[this.#arriving.length - 1] = position;
          else this.#latest = position;
        },
        allApplied: () => this.#applied(),
      };
      return watched(response, hooks, stream.cut);
    };
  }

  // The ids of received frames whose events are not applied yet. A position after a frame replaces
  // the id of that frame.
  #arriving = [];
  // The id of the event that is being applied.
  #latest = null;

  // All events up to the latest one are applied to the agent's messages.
  #applied() {
    if (!this.#latest) return;
    const { messages, state } = this.#agent;
    this.#safe = structuredClone({ id: this.#latest, messages, state });
    this.#latest = null;
  }

  #goBack() {
    this.#agent.setMessages(this.#safe.messages);
    this.#agent.setState(this.#safe.state);
  }

  // After a gap the stream sends the whole run again, so the previous state is dropped.
  #beginAnew() {
    this.#safe = NOTHING;
    return { messages: [], state: {} };
  }

  #subscriber(held, joined) {
    let first = true;
    return {
      onEvent: () => {
        this.#applied();
        this.#latest = this.#arriving.shift();
        if (first) joined();
        first = false;
      },
      onCustomEvent: ({ event }) => (event.name === GAP ? this.#beginAnew() : undefined),
      onRunFinishedEvent: ({ outcome, result, pendingToolCallIds }) => {
        Object.assign(held, { outcome, result: result ?? null, pending: pendingToolCallIds ?? [] });
      },
      onRunErrorEvent: ({ event: { message, code } }) => {
        Object.assign(held, { outcome: "error", error: { message, code: code ?? null } });
      },
    };
  }
}
