// Calls the API with the types that openapi-typescript generates from the OpenAPI document.
// Reads the address, an account and its password from the environment. Prints the responses as JSON.
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

type Event = components["schemas"]["AgUiEvent"];

const { AG_UI_URL = "", AG_UI_EMAIL = "", AG_UI_PASSWORD = "" } = process.env;
const client = createClient<paths>({ baseUrl: AG_UI_URL });

function must<T>(data: T | undefined, problem: { title: string } | undefined): T {
  if (data === undefined) throw new Error(problem?.title ?? "no answer");
  return data;
}

// Fields are typed: fields that the document does not have do not compile.
export function textOf(event: Event): string {
  return event.type === "TEXT_MESSAGE_CONTENT" ? event.delta : "";
}

const refused = await client.POST("/auth/login", { body: { email: AG_UI_EMAIL, password: "x" } });

const login = await client.POST("/auth/login", {
  body: { email: AG_UI_EMAIL, password: AG_UI_PASSWORD },
});
const tokens = must(login.data, login.error);
if (!("access_token" in tokens)) throw new Error("the tokens are in cookies");
client.use({
  onRequest({ request }) {
    request.headers.set("Authorization", `Bearer ${tokens.access_token}`);
  },
});

const list = await client.GET("/api/jobs", { params: { query: { limit: 1, status: "running" } } });
const page = must(list.data, list.error);
const one = await client.GET("/api/jobs/{job_id}", {
  params: { path: { job_id: page.items[0]?.id ?? "" } },
});
const job = must(one.data, one.error);

// @ts-expect-error an unknown job status
await client.GET("/api/jobs", { params: { query: { status: "sleeping" } } });
// @ts-expect-error an unknown path
client.GET("/api/nothing");
// @ts-expect-error an unknown field of a job
void job.colour;

const percent: number | null = job.percent;
console.log(JSON.stringify({ refused: refused.error?.type, job: job.id, percent }));
