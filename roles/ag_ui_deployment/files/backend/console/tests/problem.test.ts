import { describe, expect, it } from "vitest";
import { ApiError, explain, faultsByField, problemOf, readProblem, UNREACHABLE } from "../src/api/problem";

const answer = (status: number, headers: Record<string, string> = {}) => ({ status, headers: new Headers(headers) });

describe("problems", () => {
  it("are read from the document", () => {
    const body = {
      type: "urn:shield-ag-ui:problem:invalid-request",
      title: "The request is not valid",
      status: 422,
      detail: "Correct the named fields.",
      request_id: "r1",
      errors: [{ field: "body.arguments.url", message: "is no address" }],
    };
    expect(readProblem(body, answer(422))).toMatchObject({ slug: "invalid-request", status: 422, requestId: "r1", faults: [{ field: "body.arguments.url", message: "is no address" }] });
  });

  it.each([[undefined], ["<html>Bad gateway</html>"], [{ type: 3, errors: "x" }], [null]])("have a title without a document: %o", (body) => {
    const problem = readProblem(body, answer(502, { "retry-after": "7", "x-request-id": "r2" }));
    expect(problem).toMatchObject({ slug: "unknown", title: "The server answers 502", retryAfter: 7, requestId: "r2", faults: [] });
    expect(explain(problem)).toBe("The server answers 502. Try again in 7 s.");
  });

  it("of a connection that failed say so", () => {
    expect(problemOf(new TypeError("Failed to fetch"))).toBe(UNREACHABLE);
    expect(problemOf(new ApiError(UNREACHABLE))).toBe(UNREACHABLE);
    expect(problemOf("what")).toMatchObject({ slug: "defect", detail: "what" });
  });

  it("stand at the fields of a form", () => {
    const problem = {
      ...UNREACHABLE,
      faults: [
        { field: "body.arguments.url", message: "is no address" },
        { field: "body.arguments.url", message: "Field required" },
        { field: "body.arguments.domains.3", message: "is no domain" },
        { field: "body.workspace", message: "does not exist" },
        { field: "body", message: "is too much" },
      ],
    };
    expect(faultsByField(problem, "body.arguments.", ["url", "domains"])).toEqual({
      fields: { url: "This is no address", domains: "This is no domain" },
      others: ["body.workspace: does not exist", "is too much"],
    });
  });
});
