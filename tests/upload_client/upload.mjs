// Uploads one file with the official tus client and prints what happens, one JSON object a line. The argument is
// {file, addresses, token, metadata, cutAfter, chunkSize, hold}: the client begins at the first address. After `cutAfter`
// bytes it aborts its request, as a closed page would, and a new client goes on at the last address from the URL that it has
// remembered. While there is a file `hold`, it does not ask where to go on.

import { createReadStream, existsSync, statSync } from "node:fs";
import { setTimeout } from "node:timers/promises";
import * as tus from "tus-js-client";

const { file, addresses, token, metadata, cutAfter, chunkSize, hold } = JSON.parse(process.argv[2]);
const print = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

const send = (options) =>
  new Promise((resolve) => {
    let cut = false;
    const upload = new tus.Upload(createReadStream(file, { start: 0 }), {
      uploadSize: statSync(file).size,
      chunkSize: chunkSize ?? 1024 * 1024,
      headers: { Authorization: `Bearer ${token}` },
      metadata,
      retryDelays: [100, 300, 1000, 3000, 5000],
      onBeforeRequest: async (request) => {
        print({ asked: request.getMethod() });
        while (hold && request.getMethod() === "HEAD" && existsSync(hold)) await setTimeout(50);
      },
      onProgress: (sent) => {
        if (options.cutAfter && sent >= options.cutAfter && !cut) {
          cut = true;
          upload.abort().then(() => resolve({ url: upload.url, cut: sent }));
        }
      },
      onSuccess: () => resolve({ url: upload.url }),
      onError: (error) =>
        resolve({ url: upload.url, status: error.originalResponse?.getStatus(), body: error.originalResponse?.getBody() }),
      ...options.tus,
    });
    upload.start();
  });

const first = await send({ cutAfter, tus: { endpoint: `${addresses[0]}/api/uploads` } });
print(first);
if (first.cut) {
  const path = new URL(first.url).pathname;
  print(await send({ tus: { uploadUrl: `${addresses.at(-1)}${path}` } }));
}
