// @vitest-environment happy-dom

import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { DocumentUpload, largestUpload } from "../src/start/document-upload";
import { TusServer } from "./tus-server";

let server: TusServer;
let loggedIn: boolean;
let described: () => Response;

const file = (content = "0123456789"): File => new File([content], "sharks.pdf", { type: "application/pdf", lastModified: 1 });
const lines = (): string[] => server.requests.map(({ line }) => line);
const transfers = (): Promise<void> => vi.waitFor(() => expect(server.transfer).not.toBeNull());
const becomes = (upload: DocumentUpload, expected: object): Promise<void> => vi.waitFor(() => expect(upload.state.value).toMatchObject(expected), 4_000);

const problem = (status: number, slug: string): Response =>
  Response.json({ type: `urn:shield-ag-ui:problem:${slug}`, title: `Title of ${slug}`, status }, { status });

beforeEach(() => {
  server = new TusServer();
  loggedIn = true;
  window.localStorage.clear();
  vi.stubGlobal("XMLHttpRequest", server.XMLHttpRequest);
  vi.stubGlobal("fetch", (request: Request | string) => {
    if (typeof request !== "string" && request.method === "OPTIONS") return Promise.resolve(described());
    return Promise.resolve(loggedIn ? Response.json({}) : problem(401, "not-authenticated"));
  });
});

afterEach(() => vi.unstubAllGlobals());

describe("the upload of a document", () => {
  it("goes to its workspace, and says how far it is and which id it has got", async () => {
    const upload = new DocumentUpload("research");
    await upload.start(file());
    await transfers();
    server.move(4);
    await becomes(upload, { kind: "sending", name: "sharks.pdf", sent: 4, size: 10 });
    server.move(6);
    await becomes(upload, { kind: "complete", sent: 10, id: "up-1" });
    expect(lines()).toEqual(["POST /api/uploads", "PATCH /api/uploads/up-1"]);
    const metadata = server.uploads.get("/api/uploads/up-1")!.metadata.split(",").map((entry) => entry.split(" "));
    expect(metadata.map(([name, value]) => [name, atob(value!)])).toEqual([
      ["filename", "sharks.pdf"],
      ["workspace", "research"],
    ]);
  });

  it("is paused, and resumed where it was", async () => {
    const upload = new DocumentUpload("default");
    await upload.start(file());
    await transfers();
    server.move(4);
    upload.pause();
    expect(upload.state.value).toMatchObject({ kind: "paused", sent: 4 });
    const paused = server.transfer;
    upload.resume();
    await vi.waitFor(() => expect(server.transfer).not.toBe(paused));
    expect(lines().slice(2)).toEqual(["HEAD /api/uploads/up-1", "PATCH /api/uploads/up-1"]);
    expect(server.requests.at(-1)!.headers["Upload-Offset"]).toBe("4");
    server.move(6);
    await becomes(upload, { kind: "complete", id: "up-1" });
  });

  it.each([
    ["the connection was cut", () => server.cut()],
    ["the server has waited too long", () => server.transfer!.answer(408)],
    ["the instance was stopped", () => server.transfer!.answer(503)],
  ])("goes on by itself when %s", async (_, interrupt) => {
    const upload = new DocumentUpload("default");
    await upload.start(file());
    await transfers();
    server.move(4);
    const interrupted = server.transfer;
    interrupt();
    await vi.waitFor(() => expect(server.transfer).not.toBe(interrupted), 4_000);
    await vi.waitFor(() => expect(server.transfer).not.toBeNull(), 4_000);
    server.move(6);
    await becomes(upload, { kind: "complete" });
  });

  it("goes on where it was after the page was loaded anew, in its workspace only", async () => {
    const first = new DocumentUpload("default");
    await first.start(file());
    await transfers();
    server.move(7);
    first.pause();
    const others = new DocumentUpload("research");
    await others.start(file());
    await vi.waitFor(() => expect(server.uploads.size).toBe(2));
    others.pause();
    const second = new DocumentUpload("default");
    await second.start(file());
    await vi.waitFor(() => expect(server.requests.at(-1)).toMatchObject({ line: "PATCH /api/uploads/up-1", headers: { "Upload-Offset": "7" } }));
    server.move(3);
    await becomes(second, { kind: "complete", id: "up-1" });
  });

  it("is deleted when it is cancelled", async () => {
    const upload = new DocumentUpload("default");
    await upload.start(file());
    await transfers();
    await upload.cancel();
    expect(upload.state.value).toEqual({ kind: "none" });
    expect(lines().at(-1)).toBe("DELETE /api/uploads/up-1");
    expect(server.uploads.size).toBe(0);
  });

  it("says why it is refused, in the words of the server", async () => {
    server.refuse = (line) => (line.startsWith("POST") ? { status: 413, body: '{"type":"urn:shield-ag-ui:problem:upload-too-large","title":"Too large","status":413}' } : null);
    const upload = new DocumentUpload("default");
    await upload.start(file());
    await becomes(upload, { kind: "failed", problem: { slug: "upload-too-large", title: "Too large", status: 413 } });
    server.refuse = null;
    upload.resume();
    await transfers();
    server.move(10);
    await becomes(upload, { kind: "complete" });
  });

  it("says that the session has ended", async () => {
    loggedIn = false;
    const upload = new DocumentUpload("default");
    await upload.start(file());
    await becomes(upload, { kind: "failed", problem: { slug: "not-authenticated" } });
    expect(lines()).toEqual([]);
  });
});

it.each([
  [() => new Response(null, { status: 204, headers: { "tus-max-size": "1048576" } }), 1_048_576],
  [() => new Response(null, { status: 204 }), Number.MAX_SAFE_INTEGER],
  [() => problem(404, "uploads-disabled"), null],
])("knows how large a document may be, and whether any may be uploaded", async (answered, expected) => {
  described = answered;
  expect(await largestUpload()).toBe(expected);
});
