import { describe, expect, it } from "vitest";
import { tokenOf } from "../src/account/link-token";

describe("the token of a link", () => {
  it.each([
    ["#token=abc-_123", "abc-_123"],
    ["#token=", null],
    ["", null],
    ["#other=1", null],
    [`#token=${"x".repeat(201)}`, null],
  ])("in %s is %s", (hash, token) => {
    expect(tokenOf(hash)).toBe(token);
  });
});
