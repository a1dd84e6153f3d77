/** The typed client of the API. */

import createClient from "openapi-fetch";
import { ApiError, readProblem } from "./problem";
import { refresh } from "./refresh";
import type { paths } from "./schema";

type EndListener = () => void;
const endListeners = new Set<EndListener>();

/** Calls `listener` when an answer shows that the session has ended. */
export function onSessionEnd(listener: EndListener): void {
  endListeners.add(listener);
}

/** Sends a request; after the access token has expired, once more with a new one. */
async function fetchInSession(request: Request): Promise<Response> {
  const again = request.clone();
  const response = await fetch(request);
  if (response.status !== 401 || !(await isUnauthenticated(response))) return response;
  const outcome = await refresh();
  if (outcome === "renewed") {
    const second = await fetch(again);
    if (second.status !== 401) return second;
  }
  if (outcome !== "failed") for (const listener of endListeners) listener();
  return response;
}

async function isUnauthenticated(response: Response): Promise<boolean> {
  // A wrong password or code is answered 401 as well.
  const problem = readProblem(await response.clone().json().catch(() => null), response);
  return problem.slug === "not-authenticated";
}

export const api = createClient<paths>({ baseUrl: window.location.origin, fetch: fetchInSession });

interface Answer<T> {
  data?: T;
  error?: unknown;
  response: Response;
}

/**
 * Returns what a call answers.
 *
 * @throws {ApiError} The answer is a problem document or another error.
 */
export async function answerOf<T>(call: Promise<Answer<T>>): Promise<T> {
  const { data, error, response } = await call;
  if (!response.ok) throw new ApiError(readProblem(error, response));
  return data as T;
}
