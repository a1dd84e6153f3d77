// CopilotKit pages: the core of its frontend, which uses its runtime, which uses the backend's agent.
//
// Each input line lets one page run the agent with the page's messages and these:
//   {"client": name, "url": of the agent, "token": ..., "run": {"threadId", "runId", "messages", "tools"?, "forwardedProps"?}}
//                                            the page runs the tools that the model calls; their result is "answer"
//   {"client": name, "stop": true}           press the stop button
// Each output line is about one page, as in ../agui_client/follow.mjs:
//   {"client": name, "joined": true}         the first event has arrived
//   {"client": name, "held": {...}}          the run, and those started by tool results, have ended
//   {"client": null, "printed": [...]}       output of the page
import { once } from "node:events";
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { format } from "node:util";

import { HttpAgent } from "@ag-ui/client";
import { CopilotKitCore, CopilotKitCoreErrorCode } from "@copilotkit/core";
import { CopilotRuntime } from "@copilotkit/runtime/v2";
import { createCopilotNodeListener } from "@copilotkit/runtime/v2/node";
import { z } from "zod";

// The core connects to its runtime only if there is a window.
globalThis.window = {};

const PATH = "/api/copilotkit";

const tell = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

for (const name of ["debug", "error", "info", "log", "trace", "warn"]) {
  console[name] = (...values) => tell({ client: null, printed: [format(...values)] });
}

async function runtimeFor(url) {
  const runtime = new CopilotRuntime({ agents: { default: new HttpAgent({ url }) } });
  const server = createServer(createCopilotNodeListener({ runtime, basePath: PATH }));
  server.listen(0, "127.0.0.1").unref();
  await once(server, "listening");
  return `http://127.0.0.1:${server.address().port}${PATH}`;
}

// The runtime forwards the page's Authorization header to the agent.
async function coreFor(url, token) {
  const core = new CopilotKitCore({
    runtimeUrl: await runtimeFor(url),
    runtimeTransport: "rest",
    headers: { Authorization: `Bearer ${token}` },
  });
  await new Promise((resolve) => {
    core.subscribe({ onRuntimeConnectionStatusChanged: ({ status }) => status === "connected" && resolve() });
  });
  return core;
}

class Page {
  #core;

  async run({ url, token, run }, joined) {
    this.#core ??= await coreFor(url, token);
    const agent = this.#core.getAgent("default");
    const held = { ids: [], outcome: null, result: null, error: null, pending: [], failure: null, printed: [] };
    const listening = [this.#core.subscribe(failures(held)), agent.subscribe(ends(held, joined))];
    for (const { name, description, answer } of run.tools ?? []) {
      const parameters = z.object({ among: z.array(z.string()).optional() });
      this.#core.addTool({ name, description, parameters, handler: async () => answer });
    }
    agent.threadId = run.threadId;
    agent.addMessages(run.messages);
    await this.#core.runAgent({ agent, runId: run.runId, forwardedProps: run.forwardedProps });
    for (const one of listening) one.unsubscribe();
    return { ...held, messages: agent.messages, state: agent.state, last_event_id: null };
  }

  stop() {
    this.#core.stopAgent({ agent: this.#core.getAgent("default") });
  }
}

const failures = (held) => ({
  onError: ({ error, code }) => {
    if (code === CopilotKitCoreErrorCode.AGENT_RUN_ERROR_EVENT) return;
    held.failure = { message: `${code}: ${error.message}`, status: null, payload: null };
  },
});

const ends = (held, joined) => ({
  onEvent: joined,
  onRunFinishedEvent: ({ outcome, result }) => {
    Object.assign(held, { outcome, result: result ?? null });
  },
  onRunErrorEvent: ({ event: { message, code } }) => {
    Object.assign(held, { outcome: "error", error: { message, code: code ?? null } });
  },
});

const pages = new Map();

for await (const line of createInterface({ input: process.stdin })) {
  const { client, ...asked } = JSON.parse(line);
  if (!pages.has(client)) pages.set(client, new Page());
  const page = pages.get(client);
  if (asked.stop) {
    page.stop();
    continue;
  }
  let isJoined = false;
  const joined = () => {
    if (!isJoined) tell({ client, joined: true });
    isJoined = true;
  };
  page.run(asked, joined).then((held) => tell({ client, held }));
}
