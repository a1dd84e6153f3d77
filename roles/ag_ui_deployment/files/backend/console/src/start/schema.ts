/** Fields of a form, made from the JSON schema of a tool's arguments. */

import { asArray, asNumber, asObject, asText, type JsonObject } from "../lib/untrusted";
import { asWords } from "../lib/format";

export type FieldKind = "text" | "long-text" | "url" | "integer" | "number" | "boolean" | "choice" | "list" | "json";

export interface FormField {
  readonly name: string;
  readonly label: string;
  readonly hint: string;
  readonly kind: FieldKind;
  readonly required: boolean;
  /** What the form shows at first. */
  readonly initial: string;
  readonly choices: readonly string[];
  readonly min: number | null;
  readonly max: number | null;
  readonly minLength: number;
  readonly maxLength: number | null;
}

/** The inputs of the form by the name of the field; a boolean is "true" or "". */
export type Values = Readonly<Record<string, string>>;

const LONG_TEXT = 300;

export function fieldsOf(schema: JsonObject): FormField[] {
  const required = asArray(schema["required"]);
  const properties = asObject(schema["properties"]);
  const fields = Object.entries(properties).map(([name, property]) =>
    fieldOf(name, asObject(property), required.includes(name), schema),
  );
  // What must be filled in comes first.
  return fields.sort((a, b) => Number(b.required) - Number(a.required));
}

function fieldOf(name: string, property: JsonObject, required: boolean, root: JsonObject): FormField {
  const schema = resolved(property, root);
  const kind = kindOf(schema);
  const fallback = property["default"];
  const example = asText(asArray(schema["examples"])[0]);
  const items = asObject(schema["items"]);
  const hint = [
    asText(property["description"]) ?? asText(schema["description"]) ?? "",
    kind === "list" ? `One in each line${exampleOf(items)}.` : "",
    kind === "json" ? "As JSON." : "",
    example && kind !== "list" ? `For example ${example}` : "",
  ];
  return {
    name,
    label: asWords(asText(property["title"]) ?? name) + (required || kind === "boolean" ? "" : " (optional)"),
    hint: hint.filter(Boolean).map(sentence).join(" "),
    kind,
    required,
    initial: initialOf(fallback, kind),
    choices: asArray(schema["enum"]).filter((choice) => typeof choice === "string"),
    min: asNumber(schema["minimum"]),
    max: asNumber(schema["maximum"]),
    minLength: asNumber(schema["minLength"]) ?? 0,
    maxLength: asNumber(schema["maxLength"]),
  };
}

function exampleOf(items: JsonObject): string {
  const example = asText(asArray(items["examples"])[0]);
  return example ? `, such as ${example}` : "";
}

function sentence(text: string): string {
  return /[.!?/]$/.test(text) ? text : `${text}.`;
}

/** The schema of the value, without null as an alternative and without references. */
function resolved(schema: JsonObject, root: JsonObject): JsonObject {
  const reference = asText(schema["$ref"]);
  const path = reference?.match(/^#\/\$defs\/([^/]+)$/)?.[1];
  if (path) return { ...asObject(asObject(root["$defs"])[path]), ...schema };
  const alternatives = [...asArray(schema["anyOf"]), ...asArray(schema["oneOf"])]
    .map(asObject)
    .filter((alternative) => alternative["type"] !== "null");
  return alternatives.length === 1 ? { ...resolved(alternatives[0]!, root), ...withoutAlternatives(schema) } : schema;
}

function withoutAlternatives(schema: JsonObject): JsonObject {
  const { anyOf: _any, oneOf: _one, ...rest } = schema;
  return rest;
}

function kindOf(schema: JsonObject): FieldKind {
  if (asArray(schema["enum"]).some((choice) => typeof choice === "string")) return "choice";
  switch (schema["type"]) {
    case "string":
      if (schema["format"] === "uri") return "url";
      return (asNumber(schema["maxLength"]) ?? 0) > LONG_TEXT && !schema["pattern"] ? "long-text" : "text";
    case "integer":
      return "integer";
    case "number":
      return "number";
    case "boolean":
      return "boolean";
    case "array":
      return asObject(schema["items"])["type"] === "string" ? "list" : "json";
    default:
      return "json";
  }
}

function initialOf(fallback: unknown, kind: FieldKind): string {
  if (fallback === undefined || fallback === null || fallback === false) return "";
  if (kind === "list") return asArray(fallback).join("\n");
  return typeof fallback === "object" ? JSON.stringify(fallback, null, 2) : String(fallback);
}

/** Where a document comes from: an upload of the caller, or a path that the server of the tools knows. */
export type DocumentSource = "upload_id" | "file_path";

/** Whether a tool takes a document in either way. */
export function takesUpload(fields: readonly FormField[]): boolean {
  const names = fields.map(({ name }) => name);
  return names.includes("upload_id") && names.includes("file_path");
}

/** Of the two fields for a document the one that is filled in, which then comes first and is required. */
export function withSource(fields: readonly FormField[], source: DocumentSource): FormField[] {
  const chosen = fields.filter(({ name }) => name === source).map((field) => ({ ...field, label: asWords(field.name), required: true }));
  return [...chosen, ...fields.filter(({ name }) => name !== "upload_id" && name !== "file_path")];
}

export function initialValues(fields: readonly FormField[]): Values {
  return Object.fromEntries(fields.map((field) => [field.name, field.initial]));
}

export interface Arguments {
  readonly values: Record<string, unknown>;
  /** What is wrong, by the name of the field. */
  readonly errors: Record<string, string>;
}

/** Reads the inputs. A field without input is left out: then the default of the tool counts. */
export function argumentsOf(fields: readonly FormField[], values: Values): Arguments {
  const result: Record<string, unknown> = {};
  const errors: Record<string, string> = {};
  for (const field of fields) {
    const text = values[field.name] ?? "";
    if (field.kind === "boolean") {
      result[field.name] = text === "true";
      continue;
    }
    if (text.trim() === "") {
      if (field.required) errors[field.name] = "Fill this in.";
      continue;
    }
    const read = readValue(field, text);
    if ("error" in read) errors[field.name] = read.error;
    else result[field.name] = read.value;
  }
  return { values: result, errors };
}

type Read = { value: unknown } | { error: string };

function readValue(field: FormField, text: string): Read {
  switch (field.kind) {
    case "integer":
    case "number":
      return readNumber(field, text.trim());
    case "list":
      return {
        value: text
          .split("\n")
          .map((line) => line.trim())
          .filter(Boolean),
      };
    case "json":
      try {
        return { value: JSON.parse(text) as unknown };
      } catch {
        return { error: "This is no JSON." };
      }
    case "long-text":
      return readText(field, text);
    default:
      return readText(field, text.trim());
  }
}

function readNumber(field: FormField, text: string): Read {
  const value = Number(text);
  if (!Number.isFinite(value)) return { error: "Enter a number." };
  if (field.kind === "integer" && !Number.isSafeInteger(value)) return { error: "Enter a whole number." };
  if (field.min !== null && value < field.min) return { error: `Enter ${field.min} or more.` };
  if (field.max !== null && value > field.max) return { error: `Enter ${field.max} or less.` };
  return { value };
}

function readText(field: FormField, text: string): Read {
  // As the server counts: by code points.
  const length = [...text].length;
  if (length < field.minLength) return { error: `Enter ${field.minLength} characters or more.` };
  if (field.maxLength !== null && length > field.maxLength) {
    return { error: `Enter ${field.maxLength} characters or less; these are ${length}.` };
  }
  return { value: text };
}
