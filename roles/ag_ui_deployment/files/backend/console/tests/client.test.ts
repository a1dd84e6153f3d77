import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

const JOB_PATH = "/api/jobs/{job_id}";

let answers: (() => Response | Promise<Response>)[] = [];
let requests: string[] = [];

function problem(status: number, slug: string): () => Response {
  return () => Response.json({ type: `urn:shield-ag-ui:problem:${slug}`, title: slug, status, detail: "" }, { status });
}

function ok(body: unknown = {}): () => Response {
  return () => Response.json(body);
}

async function call() {
  const { api, answerOf, onSessionEnd } = await import("../src/api/client");
  let ended = 0;
  onSessionEnd(() => (ended += 1));
  const job = answerOf(api.GET(JOB_PATH, { params: { path: { job_id: "j" } } }));
  return { outcome: await job.catch((error: unknown) => error), ended: () => ended };
}

beforeEach(() => {
  vi.resetModules();
  requests = [];
  vi.stubGlobal("window", { location: { origin: "http://shield.test" } });
  vi.stubGlobal("navigator", {});
  vi.stubGlobal("fetch", (input: Request | string, init?: RequestInit) => {
    const request = typeof input === "string" ? `${init?.method ?? "GET"} ${input}` : `${input.method} ${new URL(input.url).pathname}`;
    requests.push(request);
    return Promise.resolve().then(answers.shift());
  });
});

afterEach(() => vi.unstubAllGlobals());

describe("the client", () => {
  it("refreshes the cookies when the access token has expired, and sends the request again", async () => {
    answers = [problem(401, "not-authenticated"), ok(), ok({ id: "j" })];
    const { outcome, ended } = await call();
    expect(outcome).toEqual({ id: "j" });
    expect(requests).toEqual(["GET /api/jobs/j", "POST /auth/refresh", "GET /api/jobs/j"]);
    expect(ended()).toBe(0);
  });

  it("takes the cookies of another tab that has refreshed them at the same moment", async () => {
    answers = [problem(401, "not-authenticated"), problem(409, "refresh-raced"), ok({ id: "j" })];
    expect((await call()).outcome).toEqual({ id: "j" });
  });

  it("says that the session has ended", async () => {
    answers = [problem(401, "not-authenticated"), problem(401, "not-authenticated")];
    const { outcome, ended } = await call();
    expect(outcome).toMatchObject({ problem: { status: 401 } });
    expect(ended()).toBe(1);
  });

  it("does not end the session if it cannot be refreshed for another reason", async () => {
    answers = [problem(401, "not-authenticated"), problem(503, "database-unavailable")];
    expect((await call()).ended()).toBe(0);
  });

  it("does not refresh for a wrong password", async () => {
    answers = [problem(401, "wrong-credentials")];
    const { outcome } = await call();
    expect(outcome).toMatchObject({ slug: "wrong-credentials" });
    expect(requests).toEqual(["GET /api/jobs/j"]);
  });

  it("refreshes once for requests of the same moment", async () => {
    const { refresh } = await import("../src/api/refresh");
    answers = [ok()];
    expect(await Promise.all([refresh(), refresh(), refresh()])).toEqual(["renewed", "renewed", "renewed"]);
    expect(requests).toEqual(["POST /auth/refresh"]);
  });
});
