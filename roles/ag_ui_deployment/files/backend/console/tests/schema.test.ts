import { describe, expect, it } from "vitest";
import { argumentsOf, fieldsOf, initialValues, takesUpload, withSource } from "../src/start/schema";

/** As `GET /api/tools` gives it for crawl_web, with one field of each further kind. */
const SCHEMA = {
  additionalProperties: false,
  type: "object",
  required: ["url"],
  properties: {
    max_pages: { default: 10, description: "How many pages at most", maximum: 50, minimum: 1, title: "Max Pages", type: "integer" },
    url: { description: "Where to begin", examples: ["https://example.org/"], format: "uri", maxLength: 20, minLength: 1, title: "Url", type: "string" },
    allowed_domains: {
      anyOf: [{ items: { examples: ["example.org"], format: "hostname", type: "string" }, maxItems: 50, type: "array" }, { type: "null" }],
      default: null,
      title: "Allowed Domains",
    },
    mode: { default: "hybrid", enum: ["naive", "hybrid"], title: "Mode", type: "string" },
    threshold: { default: 0.5, minimum: 0, maximum: 1, title: "Threshold", type: "number" },
    fresh: { default: false, title: "Fresh", type: "boolean" },
    filter: { anyOf: [{ additionalProperties: true, type: "object" }, { type: "null" }], default: null, title: "Filter" },
    text: { $ref: "#/$defs/Text", title: "Text" },
  },
  $defs: { Text: { type: "string", maxLength: 4000 } },
};

const fields = fieldsOf(SCHEMA);
const field = (name: string) => fields.find((candidate) => candidate.name === name)!;

describe("the fields of a form", () => {
  it("have the kinds of the schema, the required ones first", () => {
    expect(fields[0]!.name).toBe("url");
    expect(Object.fromEntries(fields.map(({ name, kind }) => [name, kind]))).toEqual({
      url: "url",
      max_pages: "integer",
      allowed_domains: "list",
      mode: "choice",
      threshold: "number",
      fresh: "boolean",
      filter: "json",
      text: "long-text",
    });
  });

  it("say what they are for and begin with their defaults", () => {
    expect(field("url")).toMatchObject({ label: "Url", hint: "Where to begin. For example https://example.org/", required: true });
    expect(field("max_pages")).toMatchObject({ label: "Max Pages (optional)", initial: "10", min: 1, max: 50 });
    expect(field("allowed_domains").hint).toBe("One in each line, such as example.org.");
    expect(initialValues(fields)).toMatchObject({ url: "", mode: "hybrid", threshold: "0.5", fresh: "", filter: "" });
  });
});

describe("the fields for a document", () => {
  const property = (title: string) => ({ anyOf: [{ type: "string" }, { type: "null" }], default: null, title });
  const document = fieldsOf({ type: "object", properties: { source_name: property("Source Name"), file_path: property("File Path"), upload_id: property("Upload Id") } });

  it.each([
    ["upload_id", ["Upload id", "Source Name (optional)"]],
    ["file_path", ["File path", "Source Name (optional)"]],
  ] as const)("are those of the chosen way, which is required: %s", (source, labels) => {
    expect(takesUpload(document)).toBe(true);
    const shown = withSource(document, source);
    expect(shown.map(({ label }) => label)).toEqual(labels);
    expect(argumentsOf(shown, {}).errors).toEqual({ [source]: "Fill this in." });
  });

  it("are those of a tool that takes both", () => {
    expect(takesUpload(fields)).toBe(false);
    expect(takesUpload(document.filter(({ name }) => name !== "file_path"))).toBe(false);
  });
});

describe("the arguments of a call", () => {
  const values = { ...initialValues(fields), url: "https://e.org/" };

  it("have the types of the schema; empty fields are left out", () => {
    const input = { ...values, allowed_domains: " example.org\n\nexample.net ", fresh: "true", filter: '{"a": 1}', threshold: "" };
    expect(argumentsOf(fields, input)).toEqual({
      values: { url: "https://e.org/", max_pages: 10, allowed_domains: ["example.org", "example.net"], mode: "hybrid", fresh: true, filter: { a: 1 } },
      errors: {},
    });
  });

  it.each([
    ["url", " ", "Fill this in."],
    ["url", "https://example.org/long", "Enter 20 characters or less; these are 24."],
    ["max_pages", "0", "Enter 1 or more."],
    ["max_pages", "51", "Enter 50 or less."],
    ["max_pages", "1.5", "Enter a whole number."],
    ["max_pages", "ten", "Enter a number."],
    ["filter", "{", "This is no JSON."],
  ])("are checked: %s = %s", (name, text, error) => {
    const read = argumentsOf(fields, { ...values, [name]: text });
    expect(read.errors).toEqual({ [name]: error });
    expect(read.values).not.toHaveProperty(name);
  });
});
