/** Problem documents (RFC 9457), and what takes their place if the server was not reached. */

import { asArray, asNumber, asObject, asText } from "../lib/untrusted";

const PREFIX = "urn:shield-ag-ui:problem:";

export interface FieldFault {
  readonly field: string;
  readonly message: string;
}

export interface Problem {
  /** The last part of the type, such as `wrong-credentials`; `unreachable` without an answer. */
  readonly slug: string;
  readonly status: number;
  readonly title: string;
  readonly detail: string;
  readonly faults: readonly FieldFault[];
  readonly requestId: string | null;
  /** Seconds after which a new attempt may succeed. */
  readonly retryAfter: number | null;
}

export class ApiError extends Error {
  readonly problem: Problem;

  constructor(problem: Problem) {
    super(problem.title);
    this.problem = problem;
  }

  get slug(): string {
    return this.problem.slug;
  }
}

export const UNREACHABLE: Problem = {
  slug: "unreachable",
  status: 0,
  title: "The server cannot be reached",
  detail: "Check the connection and try again.",
  faults: [],
  requestId: null,
  retryAfter: null,
};

/** Reads a problem document; an answer without one gets a title by its status. */
export function readProblem(body: unknown, response: { status: number; headers: Headers }): Problem {
  const document = asObject(body);
  const type = asText(document["type"]) ?? "";
  const seconds = Number(response.headers.get("retry-after") ?? Number.NaN);
  return {
    slug: type.startsWith(PREFIX) ? type.slice(PREFIX.length) : "unknown",
    status: asNumber(document["status"]) ?? response.status,
    title: asText(document["title"]) ?? `The server answers ${response.status}`,
    detail: asText(document["detail"]) ?? "",
    faults: asArray(document["errors"]).map((entry) => {
      const fault = asObject(entry);
      return { field: asText(fault["field"]) ?? "", message: asText(fault["message"]) ?? "is not valid" };
    }),
    requestId: asText(document["request_id"]) ?? response.headers.get("x-request-id"),
    retryAfter: Number.isFinite(seconds) ? seconds : null,
  };
}

/** The problem of anything that was thrown. */
export function problemOf(error: unknown): Problem {
  if (error instanceof ApiError) return error.problem;
  // fetch throws a TypeError without a connection.
  if (error instanceof TypeError) return UNREACHABLE;
  return {
    ...UNREACHABLE,
    slug: "defect",
    title: "The console has a defect",
    detail: error instanceof Error ? error.message : String(error),
  };
}

/** One sentence or two for the reader. */
export function explain(problem: Problem): string {
  const wait = problem.retryAfter ? ` Try again in ${Math.ceil(problem.retryAfter)} s.` : "";
  const sentence = problem.detail ? `${problem.title}. ${problem.detail}` : `${problem.title}.`;
  return sentence + wait;
}

/**
 * Sorts the faults of an answer by the names of a form.
 *
 * @param prefix What stands before the names, such as `body.` or `body.arguments.`
 * @returns The messages by name, and those that belong to no field of the form.
 */
export function faultsByField(
  problem: Problem,
  prefix: string,
  names: readonly string[],
): { fields: Record<string, string>; others: string[] } {
  const fields: Record<string, string> = {};
  const others: string[] = [];
  for (const { field, message } of problem.faults) {
    const path = field.startsWith(prefix) ? field.slice(prefix.length) : field;
    const name = names.find((known) => path === known || path.startsWith(`${known}.`));
    if (name === undefined) others.push(path && path !== "body" ? `${path}: ${message}` : message);
    else fields[name] ??= sentence(message);
  }
  return { fields, others };
}

/** Many messages say something about the value: "is no address". */
function sentence(message: string): string {
  return /^[a-z]/.test(message) ? `This ${message}` : message;
}
