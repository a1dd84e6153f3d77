/** Small parts that all pages share. Everything they show is text, never markup. */

import type { ComponentChildren, JSX } from "preact";
import { useEffect, useId, useLayoutEffect, useRef, useState } from "preact/hooks";
import { explain, type Problem } from "../api/problem";
import type { JobStatus, Outcome } from "../api/types";
import { formatAge, formatDateTime, formatDuration, formatPercent, isoTime } from "../lib/format";
import { useNow } from "../lib/hooks";
import { router } from "../lib/router";
import { Icon } from "./icons";

/** A page with its heading, which gets the focus when the reader has come from another page. */
export function Page(props: { title: string; actions?: ComponentChildren; class?: string; children: ComponentChildren }) {
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => {
    document.title = `${props.title} · Shield`;
  }, [props.title]);
  useLayoutEffect(() => {
    if (router().navigated) heading.current?.focus({ preventScroll: true });
  }, []);
  return (
    <div class={`page ${props.class ?? ""}`}>
      <div class="page-head">
        <h1 ref={heading} tabIndex={-1}>
          {props.title}
        </h1>
        {props.actions && <div class="page-actions">{props.actions}</div>}
      </div>
      {props.children}
    </div>
  );
}

export function Card(props: { title?: string; actions?: ComponentChildren; class?: string; children: ComponentChildren }) {
  const id = useId();
  return (
    <section class={`card ${props.class ?? ""}`} aria-labelledby={props.title ? id : undefined}>
      {props.title && (
        <div class="card-head">
          <h2 id={id}>{props.title}</h2>
          {props.actions}
        </div>
      )}
      {props.children}
    </section>
  );
}

interface ButtonProps {
  kind?: "primary" | "plain" | "danger" | "quiet";
  type?: "button" | "submit";
  busy?: boolean;
  disabled?: boolean;
  label?: string;
  /** Of a button that shows and hides something: whether it is shown. */
  expanded?: boolean;
  onClick?: () => void;
  children: ComponentChildren;
}

export function Button({ kind = "plain", type = "button", busy = false, disabled, label, expanded, onClick, children }: ButtonProps) {
  return (
    <button type={type} class={`button button-${kind}`} disabled={disabled} aria-disabled={busy} aria-busy={busy} aria-label={label} aria-expanded={expanded} onClick={busy ? undefined : onClick}>
      {children}
    </button>
  );
}

export function Spinner({ label }: { label: string }) {
  return (
    <div class="spinner" role="status">
      <span class="spinner-wheel" aria-hidden="true" />
      <span>{label}…</span>
    </div>
  );
}

export function Notice(props: { kind: "info" | "success" | "warning" | "error"; children: ComponentChildren; onClose?: () => void }) {
  const role = props.kind === "error" || props.kind === "warning" ? "alert" : "status";
  return (
    <div class={`notice notice-${props.kind}`} role={role}>
      <div class="notice-text">{props.children}</div>
      {props.onClose && (
        <Button kind="quiet" label="Dismiss" onClick={props.onClose}>
          <Icon name="close" />
        </Button>
      )}
    </div>
  );
}

export function ProblemNotice({ problem, retry }: { problem: Problem | null; retry?: () => void }) {
  if (!problem) return null;
  return (
    <Notice kind="error">
      <p>{explain(problem)}</p>
      {problem.requestId && problem.status >= 500 && <p class="faint">Request {problem.requestId}</p>}
      {retry && <Button onClick={retry}>Try again</Button>}
    </Notice>
  );
}

interface FieldProps {
  label: string;
  hint?: string | undefined;
  error?: string | undefined;
  children: (attributes: { id: string; "aria-describedby": string | undefined; "aria-invalid": boolean }) => JSX.Element;
}

/** A label, an input, a hint and the error of the input. */
export function Field({ label, hint, error, children }: FieldProps) {
  const id = useId();
  const hintId = hint ? `${id}-hint` : "";
  const errorId = error ? `${id}-error` : "";
  const described = [errorId, hintId].filter(Boolean).join(" ");
  return (
    <div class="field">
      <label for={id}>{label}</label>
      {children({ id, "aria-describedby": described || undefined, "aria-invalid": Boolean(error) })}
      {error && (
        <p class="field-error" id={errorId}>
          {error}
        </p>
      )}
      {hint && (
        <p class="field-hint" id={hintId}>
          {hint}
        </p>
      )}
    </div>
  );
}

/** The types of Preact ask for the type of an input as a literal. */
export function inputType(type: string): { type: "text" } {
  return { type: type as "text" };
}

interface TextFieldProps {
  label: string;
  value: string;
  onInput: (value: string) => void;
  type?: "text" | "search" | "email" | "password" | "url" | "number" | "date" | "datetime-local";
  hint?: string | undefined;
  error?: string | undefined;
  autocomplete?: string;
  inputMode?: "numeric" | "text";
  required?: boolean;
  maxLength?: number;
  focus?: boolean;
}

export function TextField(props: TextFieldProps) {
  const input = useRef<HTMLInputElement>(null);
  useEffect(() => {
    if (props.focus) input.current?.focus();
  }, [props.focus]);
  return (
    <Field label={props.label} hint={props.hint} error={props.error}>
      {(attributes) => (
        <input
          {...attributes}
          ref={input}
          {...inputType(props.type ?? "text")}
          value={props.value}
          required={props.required}
          maxLength={props.maxLength}
          inputMode={props.inputMode}
          autocomplete={props.autocomplete ?? "off"}
          spellcheck={false}
          autocapitalize="off"
          onInput={(event) => props.onInput(event.currentTarget.value)}
        />
      )}
    </Field>
  );
}

/** Tells password managers whose password a form is about. */
export function HiddenUsername({ email }: { email: string }) {
  return <input type="text" autocomplete="username" value={email} readOnly hidden />;
}

interface SelectFieldProps {
  label: string;
  value: string;
  options: readonly { value: string; label: string }[];
  onChange: (value: string) => void;
}

export function SelectField({ label, value, options, onChange }: SelectFieldProps) {
  return (
    <Field label={label}>
      {(attributes) => (
        <select {...attributes} value={value} onChange={(event) => onChange(event.currentTarget.value)}>
          {options.map((option) => (
            <option key={option.value} value={option.value} selected={option.value === value}>
              {option.label}
            </option>
          ))}
        </select>
      )}
    </Field>
  );
}

/** A table that scrolls sideways where it is too wide; a region that scrolls must be reachable by keyboard. */
export function Table(props: { label: string; head: readonly string[]; children: ComponentChildren }) {
  return (
    <div class="table-box" tabIndex={0} role="group" aria-label={props.label}>
      <table>
        <thead>
          <tr>
            {props.head.map((name) => (
              <th key={name} scope="col">
                {name}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>{props.children}</tbody>
      </table>
    </div>
  );
}

/** A name and its value in a list of class `facts`. */
export function Fact({ name, children }: { name: string; children: ComponentChildren }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}

const STATUS_LABELS: Record<JobStatus, string> = {
  queued: "Queued",
  running: "Running",
  completed: "Completed",
  failed: "Failed",
  cancelled: "Cancelled",
};

export function statusLabel(status: JobStatus): string {
  return STATUS_LABELS[status];
}

export function StatusBadge({ status }: { status: JobStatus }) {
  return <span class={`badge badge-${status}`}>{STATUS_LABELS[status]}</span>;
}

const OUTCOMES: Record<Outcome, { label: string; badge: string }> = {
  success: { label: "Success", badge: "completed" },
  failure: { label: "Failure", badge: "failed" },
  denied: { label: "Denied", badge: "cancelled" },
};

export function OutcomeBadge({ outcome }: { outcome: string }) {
  const known = Object.hasOwn(OUTCOMES, outcome) ? OUTCOMES[outcome as Outcome] : { label: outcome, badge: "queued" };
  return <span class={`badge badge-${known.badge}`}>{known.label}</span>;
}

/** Progress in percent; null where it is unknown. */
export function ProgressBar({ percent, status, label }: { percent: number | null; status: JobStatus; label: string }) {
  const known = percent !== null;
  return (
    <div class={`progress progress-${status}`}>
      {known || status !== "running" ? (
        <progress max={100} value={percent ?? 0} aria-label={label} />
      ) : (
        <progress aria-label={label} />
      )}
      <span class="progress-text">{known ? formatPercent(percent) : ""}</span>
    </div>
  );
}

/** A time as an age that goes on, with the date as its title. */
export function Age({ time }: { time: number | null }) {
  const now = useNow(time !== null);
  if (time === null) return <span class="faint">–</span>;
  return (
    <time dateTime={isoTime(time)} title={formatDateTime(time)}>
      {formatAge(time, now)}
    </time>
  );
}

export function DateTime({ time }: { time: number | null }) {
  if (time === null) return <span class="faint">–</span>;
  return <time dateTime={isoTime(time)}>{formatDateTime(time)}</time>;
}

/** How long something has taken, or takes until now. */
export function Duration({ from, to }: { from: number; to: number | null }) {
  const now = useNow(to === null);
  return <span class="number">{formatDuration((to ?? now) - from)}</span>;
}

/** JSON, indented. Long values are cut: they are shown whole in the raw events. */
export function Json({ value, label }: { value: unknown; label?: string }) {
  const text = typeof value === "string" ? value : JSON.stringify(value, null, 2);
  // A region that scrolls must be reachable by keyboard.
  return (
    <pre class="json" tabIndex={0} role="group" aria-label={label ?? "Data"}>
      {text}
    </pre>
  );
}

export function CopyButton({ text, label }: { text: string; label: string }) {
  const [copied, setCopied] = useState(false);
  useEffect(() => {
    if (!copied) return undefined;
    const timer = setTimeout(() => setCopied(false), 2000);
    return () => clearTimeout(timer);
  }, [copied]);
  const copy = (): void => {
    navigator.clipboard?.writeText(text).then(
      () => setCopied(true),
      () => undefined,
    );
  };
  return (
    <Button onClick={copy}>
      <Icon name={copied ? "check" : "copy"} />
      <span aria-live="polite">{copied ? "Copied" : label}</span>
    </Button>
  );
}

interface ConfirmProps {
  title: string;
  action: string;
  children: ComponentChildren;
  onConfirm: () => void;
  onCancel: () => void;
}

/** Asks before something that cannot be undone. The dialog keeps the focus and gives it back. */
export function Confirm({ title, action, children, onConfirm, onCancel }: ConfirmProps) {
  const dialog = useRef<HTMLDialogElement>(null);
  const id = useId();
  useEffect(() => {
    const before = document.activeElement;
    dialog.current?.showModal();
    return () => {
      if (before instanceof HTMLElement) before.focus();
    };
  }, []);
  return (
    <dialog
      ref={dialog}
      aria-labelledby={id}
      onCancel={(event) => {
        event.preventDefault();
        onCancel();
      }}
    >
      <h2 id={id}>{title}</h2>
      <div class="dialog-text">{children}</div>
      <div class="buttons">
        <Button onClick={onCancel}>Back</Button>
        <Button kind="danger" onClick={onConfirm}>
          {action}
        </Button>
      </div>
    </dialog>
  );
}
