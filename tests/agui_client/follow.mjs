// Clients of the backend made of @ag-ui/client, many in one process.
//
// Each line of the input asks one client to follow one stream:
//   {"client": name, "url": ..., "token": ..., "last_event_id"?, "cut"?}
//   {"client": name, "url": ..., "token": ..., "run": {"threadId", "runId", "messages", "tools"?, "state"?}, "cut"?}
//                                            run the agent, with what the client holds and these messages
//   {"client": name, "url": ..., "token": ..., "join": {"threadId", "messages"}}
//                                            join a conversation, by connectAgent
//   {"client": name, "body": ...}            the text of a stream, instead of a connection
// "version" of the first line of a client is that of its npm package.
// A cut is {"frames": so many with data, "ids": so many with an id, "abrupt"?}; see wire.mjs.
// A client that was asked before goes on with what it holds: its messages, its state, its last id.
// Each line of the output tells of one of them:
//   {"client": name, "joined": true}         the first event of the connection has come
//   {"client": name, "held": {...}}          the connection has ended, and this is what it led to
//   {"client": null, "printed": [...]}       something was printed that no client can be blamed for
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
