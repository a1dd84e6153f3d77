import { useEffect, useRef } from "preact/hooks";
import { formatBytes } from "../lib/format";
import { useStore } from "../lib/hooks";
import { Button, Field, inputType, ProblemNotice, ProgressBar } from "../ui/parts";
import type { DocumentUpload, UploadState } from "./document-upload";

interface DocumentFieldProps {
  upload: DocumentUpload;
  /** The largest size in bytes. */
  max: number;
  error: string | undefined;
  /** Gets the id of the upload when it is complete, and an empty text when there is none. */
  onUpload: (id: string) => void;
}

/** Chooses a document and uploads it. */
export function DocumentField({ upload, max, error, onUpload }: DocumentFieldProps) {
  const state = useStore(upload.state);
  const actions = useRef<HTMLDivElement>(null);
  const id = state.kind === "complete" ? state.id : "";
  useEffect(() => onUpload(id), [id]);
  // It goes on when the same file is chosen again.
  useEffect(() => () => upload.pause(), [upload]);
  const hint = max < Number.MAX_SAFE_INTEGER ? `At most ${formatBytes(max)}.` : undefined;
  if (state.kind === "none") {
    return (
      <Field label="Document" hint={hint} error={error}>
        {(attributes) => (
          <input
            {...attributes}
            {...inputType("file")}
            onChange={(event) => {
              const file = event.currentTarget.files?.[0];
              if (!file) return;
              void upload.start(file);
              // The input is replaced by these.
              requestAnimationFrame(() => actions.current?.querySelector("button")?.focus());
            }}
          />
        )}
      </Field>
    );
  }
  return (
    <div class="field" role="group" aria-label="Document">
      <p class="upload-name">{state.name}</p>
      <ProgressBar percent={state.size > 0 ? (100 * state.sent) / state.size : 100} status={state.kind === "complete" ? "completed" : "running"} label="Uploaded" />
      <p class="faint">
        <span role="status">{STATUS[state.kind]}</span> · {formatBytes(state.sent)} of {formatBytes(state.size)}
      </p>
      {state.kind === "failed" && <ProblemNotice problem={state.problem} />}
      {error && <p class="field-error">{error}</p>}
      <div class="buttons" ref={actions}>
        {state.kind === "sending" && <Button onClick={() => upload.pause()}>Pause</Button>}
        {(state.kind === "paused" || state.kind === "failed") && <Button onClick={() => upload.resume()}>{state.kind === "paused" ? "Resume" : "Try again"}</Button>}
        <Button onClick={() => void upload.cancel()}>{state.kind === "complete" ? "Remove" : "Cancel the upload"}</Button>
      </div>
    </div>
  );
}

const STATUS: Readonly<Record<Exclude<UploadState["kind"], "none">, string>> = {
  sending: "Uploading",
  paused: "Paused",
  failed: "Interrupted",
  complete: "Uploaded",
};
