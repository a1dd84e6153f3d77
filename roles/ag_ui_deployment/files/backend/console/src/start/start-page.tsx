import "./start.css";
import { useCallback, useMemo, useRef, useState } from "preact/hooks";
import { answerOf, api } from "../api/client";
import { ApiError, faultsByField } from "../api/problem";
import type { Tool } from "../api/types";
import { useAction, useLoaded, useStore } from "../lib/hooks";
import { href, router } from "../lib/router";
import { asObject, asText } from "../lib/untrusted";
import { session, workspacesWith } from "../session";
import { Button, Card, Field, inputType, Json, Page, ProblemNotice, SelectField, Spinner } from "../ui/parts";
import { DocumentField } from "./document-field";
import { DocumentUpload, largestUpload } from "./document-upload";
import { argumentsOf, type DocumentSource, fieldsOf, type FormField, initialValues, takesUpload, withSource } from "./schema";

const DEFAULT_WORKSPACE = "default";

/** The tools that most readers look for, with their names for them, in this order. */
const KNOWN: Readonly<Record<string, string>> = {
  crawl_web: "Crawl a web site",
  ingest_doc: "Ingest a document",
  lightrag_query: "Ask a question",
};

function parameters(query: string, workspaces: readonly string[]): { workspace: string; tool: string | null } {
  const params = new URLSearchParams(query);
  const workspace = params.get("workspace");
  const first = workspaces.includes(DEFAULT_WORKSPACE) ? DEFAULT_WORKSPACE : (workspaces[0] ?? DEFAULT_WORKSPACE);
  return { workspace: workspace && workspaces.includes(workspace) ? workspace : first, tool: params.get("tool") };
}

export default function StartPage({ query }: { query: string }) {
  const current = useStore(session);
  const workspaces = current.kind === "user" ? workspacesWith(current.permissions, "tools:query") : [];
  const { workspace, tool } = parameters(query, workspaces);
  const tools = useLoaded(
    async () => (await answerOf(api.GET("/api/tools", { params: { query: { workspace } } }))).items,
    workspace,
  );
  const sorted = useMemo(() => inOrder(tools.data ?? []), [tools.data]);
  const chosen = sorted.find(({ name }) => name === tool) ?? sorted[0];
  const show = (changed: Readonly<Record<string, string>>): void => {
    const params = { workspace, ...(chosen && { tool: chosen.name }), ...changed };
    router().go(href("start", {}, new URLSearchParams(params).toString()), { replace: true });
  };
  return (
    <Page title="Start" class="start-page">
      <ProblemNotice problem={tools.problem} retry={() => void tools.reload()} />
      {workspaces.length > 1 && (
        <SelectField
          label="Workspace"
          value={workspace}
          options={workspaces.map((name) => ({ value: name, label: name }))}
          onChange={(name) => show({ workspace: name })}
        />
      )}
      {tools.data === null && tools.loading && <Spinner label="Loading the tools" />}
      {tools.data && sorted.length === 0 && <div class="empty">There is no tool that you may use in this workspace.</div>}
      {chosen && (
        <>
          <div class="tool-tabs" role="group" aria-label="What to start">
            {sorted.map((entry) => (
              <button key={entry.name} type="button" class="tool-tab" aria-pressed={entry === chosen} onClick={() => show({ tool: entry.name })}>
                {titleOf(entry)}
              </button>
            ))}
          </div>
          <ToolForm key={`${workspace} ${chosen.name}`} tool={chosen} workspace={workspace} />
        </>
      )}
    </Page>
  );
}

function titleOf(tool: Tool): string {
  return Object.hasOwn(KNOWN, tool.name) ? KNOWN[tool.name]! : tool.title || tool.name;
}

function inOrder(tools: readonly Tool[]): Tool[] {
  const names = Object.keys(KNOWN);
  const rank = (tool: Tool): number => (names.includes(tool.name) ? names.indexOf(tool.name) : names.length);
  return [...tools].sort((a, b) => rank(a) - rank(b));
}

/** After these the same request, sent again, is another attempt of the same call. */
const SAME_ATTEMPT = new Set(["unreachable", "still-running"]);

function ToolForm({ tool, workspace }: { tool: Tool; workspace: string }) {
  const all = useMemo(() => fieldsOf(tool.input_schema), [tool]);
  const isDocument = takesUpload(all);
  const [source, setSource] = useState<DocumentSource>("upload_id");
  const upload = useMemo(() => new DocumentUpload(workspace), [workspace]);
  const max = useLoaded(async () => (isDocument ? await largestUpload() : null));
  const usedSource = max.data === null ? "file_path" : source;
  const fields = useMemo(() => (isDocument ? withSource(all, usedSource) : all), [all, isDocument, usedSource]);
  const [values, setValues] = useState(() => initialValues(all));
  const [errors, setErrors] = useState<Readonly<Record<string, string>>>({});
  const [result, setResult] = useState<{ value: unknown } | null>(null);
  const form = useRef<HTMLFormElement>(null);
  const attempt = useRef<{ body: string; key: string } | null>(null);
  const action = useAction();

  const setValue = (name: string, value: string): void => setValues((before) => ({ ...before, [name]: value }));
  const setUpload = useCallback((id: string): void => {
    setValue("upload_id", id);
    // What was missing, or wrong with another upload.
    setErrors(({ upload_id: _upload, ...others }) => others);
  }, []);

  const faults = action.problem ? faultsByField(action.problem, "body.arguments.", fields.map(({ name }) => name)) : null;
  const shown = { ...faults?.fields, ...errors };

  const submit = async (): Promise<void> => {
    setResult(null);
    const read = argumentsOf(fields, values);
    setErrors(read.errors["upload_id"] ? { ...read.errors, upload_id: "Choose a document, and wait until it is uploaded." } : read.errors);
    if (Object.keys(read.errors).length > 0) {
      focusFirstError(form.current);
      return;
    }
    const sent = await action.run(async () => {
      const answer = await callTool(tool, workspace, read.values, attempt);
      if ("result" in answer) setResult({ value: answer.result });
      else router().go(href("job", { id: answer.id }));
    });
    if (!sent) focusFirstError(form.current);
  };

  return (
    <Card title={titleOf(tool)}>
      {tool.description && <p class="faint">{tool.description}</p>}
      <form
        ref={form}
        class="form"
        noValidate
        onSubmit={(event) => {
          event.preventDefault();
          void submit();
        }}
      >
        {faults && Object.keys(faults.fields).length === 0 && <ProblemNotice problem={action.problem} />}
        {faults?.others.map((message) => (
          <p key={message} class="field-error">
            {message}
          </p>
        ))}
        {isDocument && max.data !== null && <SourceChoice source={source} onChange={setSource} />}
        {isDocument && max.loading && <Spinner label="Asking whether documents can be uploaded" />}
        {fields.map((field) =>
          field.name === "upload_id" && isDocument ? (
            <DocumentField key={field.name} upload={upload} max={max.data ?? 0} error={shown[field.name]} onUpload={setUpload} />
          ) : (
            <SchemaField key={field.name} field={field} value={values[field.name] ?? ""} error={shown[field.name]} onInput={(value) => setValue(field.name, value)} />
          ),
        )}
        <div class="buttons">
          <Button kind="primary" type="submit" busy={action.busy}>
            {action.busy ? "Sending…" : tool.starts_job ? "Start" : "Send"}
          </Button>
        </div>
      </form>
      <div role="status">{result && <Result value={result.value} />}</div>
    </Card>
  );
}

const SOURCES: readonly { value: DocumentSource; label: string }[] = [
  { value: "upload_id", label: "Upload a file" },
  { value: "file_path", label: "A path that the server of the tools knows" },
];

function SourceChoice({ source, onChange }: { source: DocumentSource; onChange: (source: DocumentSource) => void }) {
  return (
    <fieldset class="sources">
      <legend>Document</legend>
      {SOURCES.map(({ value, label }) => (
        <label key={value} class="check">
          <input {...inputType("radio")} name="source" value={value} checked={source === value} onChange={() => onChange(value)} />
          {label}
        </label>
      ))}
    </fieldset>
  );
}

interface Attempt {
  current: { body: string; key: string } | null;
}

/** The key stays the same while it is unknown whether the request has arrived: then it is carried out once. */
async function callTool(tool: Tool, workspace: string, values: Record<string, unknown>, attempt: Attempt) {
  const body = { arguments: values, workspace };
  const text = JSON.stringify(body);
  if (attempt.current?.body !== text) attempt.current = { body: text, key: crypto.randomUUID() };
  const header = tool.writes ? { "idempotency-key": attempt.current.key } : {};
  try {
    const answer = await answerOf(api.POST("/api/tools/{name}", { params: { path: { name: tool.name }, header }, body }));
    attempt.current = null;
    return answer;
  } catch (error) {
    const same = !(error instanceof ApiError) || SAME_ATTEMPT.has(error.slug);
    if (!same) attempt.current = null;
    throw error;
  }
}

function focusFirstError(form: HTMLFormElement | null): void {
  // After the errors are rendered.
  requestAnimationFrame(() => form?.querySelector<HTMLElement>("[aria-invalid=true]")?.focus());
}

interface SchemaFieldProps {
  field: FormField;
  value: string;
  error: string | undefined;
  onInput: (value: string) => void;
}

function SchemaField({ field, value, error, onInput }: SchemaFieldProps) {
  if (field.kind === "boolean") {
    return (
      <div class="field">
        <label class="check">
          <input type="checkbox" checked={value === "true"} onChange={(event) => onInput(event.currentTarget.checked ? "true" : "")} />
          {field.label}
        </label>
        {error && <p class="field-error">{error}</p>}
        {field.hint && <p class="field-hint">{field.hint}</p>}
      </div>
    );
  }
  return (
    <Field label={field.label} hint={field.hint || undefined} error={error}>
      {(attributes) => {
        const common = { ...attributes, value, "aria-required": field.required };
        if (field.kind === "choice") {
          return (
            <select {...common} onChange={(event) => onInput(event.currentTarget.value)}>
              {!field.required && field.initial === "" && <option value="">–</option>}
              {field.choices.map((choice) => (
                <option key={choice} value={choice} selected={choice === value}>
                  {choice}
                </option>
              ))}
            </select>
          );
        }
        if (field.kind === "long-text" || field.kind === "list" || field.kind === "json") {
          return <textarea {...common} rows={field.kind === "long-text" ? 4 : 3} spellcheck={field.kind === "long-text"} onInput={(event) => onInput(event.currentTarget.value)} />;
        }
        const isNumber = field.kind === "integer" || field.kind === "number";
        return (
          <input
            {...common}
            {...inputType(isNumber ? "number" : field.kind === "url" ? "url" : "text")}
            step={field.kind === "integer" ? 1 : "any"}
            min={field.min ?? undefined}
            max={field.max ?? undefined}
            autocomplete="off"
            onInput={(event) => onInput(event.currentTarget.value)}
          />
        );
      }}
    </Field>
  );
}

/** An answer in words as text, anything else as data. */
function Result({ value }: { value: unknown }) {
  const answer = typeof value === "string" ? value : asText(asObject(value)["answer"]);
  return (
    <section class="result" aria-label="Result">
      <h3>Result</h3>
      {answer !== null && <p class="answer">{answer}</p>}
      {typeof value !== "string" && (
        <details open={answer === null}>
          <summary>Data</summary>
          <Json value={value} label="Result" />
        </details>
      )}
    </section>
  );
}
