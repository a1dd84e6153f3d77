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
  const field = useRef<HTMLDivElement>(null);
  const id = state.kind === "complete" ? state.id : "";
  useEffect(() => onUpload(id), [id]);
  // It goes on when the same file is chosen again.
  useEffect(() => () => upload.pause(), [upload]);
  /** The control that had the focus is replaced by others. */
  const keepFocus = (): void => {
    requestAnimationFrame(() => field.current?.querySelector<HTMLElement>("input, button")?.focus());
  };
  const choose = (file: File | undefined): void => {
    if (!file) return;
    void upload.start(file);
    keepFocus();
  };
  const cancel = (): void => {
    void upload.cancel();
    keepFocus();
  };
  return (
    <div ref={field}>
      {state.kind === "none" ? (
        <Field label="Document" hint={max < Number.MAX_SAFE_INTEGER ? `At most ${formatBytes(max)}.` : undefined} error={error}>
          {(attributes) => <input {...attributes} {...inputType("file")} onChange={(event) => choose(event.currentTarget.files?.[0])} />}
        </Field>
      ) : (
        <div class="field" role="group" aria-label="Document">
          <p class="upload-name">{state.name}</p>
          <ProgressBar percent={state.size > 0 ? (100 * state.sent) / state.size : 100} status={state.kind === "complete" ? "completed" : "running"} label="Uploaded" />
          <p class="faint">
            <span role="status">{STATUS[state.kind]}</span> · {formatBytes(state.sent)} of {formatBytes(state.size)}
          </p>
          {state.kind === "failed" && <ProblemNotice problem={state.problem} />}
          {error && <p class="field-error">{error}</p>}
          <div class="buttons">
            {state.kind !== "complete" && (
              <Button onClick={() => (state.kind === "sending" ? upload.pause() : upload.resume())}>{ACTION[state.kind]}</Button>
            )}
            <Button onClick={cancel}>{state.kind === "complete" ? "Remove" : "Cancel the upload"}</Button>
          </div>
        </div>
      )}
    </div>
  );
}

const ACTION = { sending: "Pause", paused: "Resume", failed: "Try again" };

const STATUS: Readonly<Record<Exclude<UploadState["kind"], "none">, string>> = {
  sending: "Uploading",
  paused: "Paused",
  failed: "Interrupted",
  complete: "Uploaded",
};
