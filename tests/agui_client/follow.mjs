// Runs many @ag-ui/client clients of the backend in one process.
//
// Each input line lets one client follow one stream:
//   {"client": name, "url": ..., "token": ..., "last_event_id"?, "cut"?}
//   {"client": name, "url": ..., "token": ..., "run": {"threadId", "runId", "messages", "tools"?, "state"?}, "cut"?}
//                                            run the agent with the client's messages and these
//   {"client": name, "url": ..., "token": ..., "join": {"threadId", "messages"}}
//                                            join a conversation with connectAgent
//   {"client": name, "body": ...}            a recorded stream, instead of a connection
// "version" in the first line of a client is the version of its npm package.
// "cut" is {"frames": number of frames with data, "ids": number of frames with an id, "abrupt"?};
// see wire.mjs.
// A client keeps its messages, its state and its last event id for its next line.
// Each output line is about one client:
//   {"client": name, "joined": true}         the first event of the connection has arrived
//   {"client": name, "held": {...}}          the connection has ended with this state
//   {"client": null, "printed": [...]}       output that belongs to no client
import { createInterface } from "node:readline";

import { Client } from "./client.mjs";
import { strayLines } from "./console.mjs";

const clients = new Map();

const tell = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

const clientOf = (name, version) => {
  if (!clients.has(name)) clients.set(name, new Client(version));
  return clients.get(name);
};

strayLines((printed) => tell({ client: null, printed }));

for await (const line of createInterface({ input: process.stdin })) {
  const { client, version, ...stream } = JSON.parse(line);
  clientOf(client, version)
    .follow(stream, () => tell({ client, joined: true }))
    .then((held) => tell({ client, held }));
}
