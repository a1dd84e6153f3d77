import { useState } from "preact/hooks";
import { href } from "../lib/router";
import { asObject, asText, parseJson } from "../lib/untrusted";
import { Duration, Json, StatusBadge } from "./parts";

interface ShownCall {
  readonly name: string;
  /** JSON as text, which may be incomplete. */
  readonly args: string;
  readonly result: string | null;
}

interface ToolCallProps {
  call: ShownCall;
  /** Null if the call has ended without a result. */
  status: "running" | "completed" | null;
  startedAt?: number | null;
  endedAt?: number | null;
  open?: boolean;
}

/** A tool call as one line that unfolds to its arguments and its result. */
export function ToolCallDetails({ call, status, startedAt = null, endedAt = null, open: isOpen = false }: ToolCallProps) {
  const [open, setOpen] = useState(isOpen);
  const result = call.result === null ? null : parseJson(call.result);
  const failed = Object.hasOwn(asObject(result), "error");
  const job = asText(asObject(result)["job_id"]);
  return (
    <details class="call" open={open} onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>
        <span class="mono">{call.name}</span>
        {status === null ? <span class="faint">no result</span> : <StatusBadge status={failed ? "failed" : status} />}
        {startedAt !== null && (
          <span class="faint">
            <Duration from={startedAt} to={endedAt} />
          </span>
        )}
      </summary>
      {open && (
        <div class="call-data">
          <h3>Arguments</h3>
          <Json value={parseJson(call.args) ?? call.args} label={`Arguments of ${call.name}`} />
          {call.result !== null && (
            <>
              <h3>Result</h3>
              <Json value={result ?? call.result} label={`Result of ${call.name}`} />
            </>
          )}
          {job && (
            <p>
              <a href={href("job", { id: job })}>Open the job</a>
            </p>
          )}
        </div>
      )}
    </details>
  );
}
