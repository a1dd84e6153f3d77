import "./job.css";
import { useEffect, useMemo, useState } from "preact/hooks";
import { hasEnded } from "../api/types";
import { asWords, formatClock, formatDateTime, formatDuration, formatNumber, isoTime } from "../lib/format";
import { useAction, useStore } from "../lib/hooks";
import { href } from "../lib/router";
import type { LiveJob } from "../live/live-job";
import { may, session } from "../session";
import { Connection } from "../ui/connection";
import { Counters } from "../ui/counters";
import {
  Button,
  Card,
  Confirm,
  CopyButton,
  DateTime,
  Duration,
  Fact,
  Json,
  Notice,
  Page,
  ProblemNotice,
  ProgressBar,
  Spinner,
  StatusBadge,
} from "../ui/parts";
import { ToolCallDetails } from "../ui/tool-call";
import { JobModel } from "./model";
import { PastCalls } from "./past-calls";
import type { Step, ToolCall } from "./run";
import { entriesOf, type Entry, merged, toneOf } from "./timeline";

const RAW_STEP = 50;

export default function JobPage({ params }: { params: Readonly<Record<string, string>> }) {
  const id = params["id"]!;
  const model = useMemo(() => new JobModel(id), [id]);
  useEffect(() => {
    model.start();
    return () => model.stop();
  }, [model]);
  const run = useStore(model.run);
  const details = useStore(model.details);
  const history = useStore(model.history);
  const steps = useMemo(() => merged(history.steps, run.steps.values()), [history.steps, run.steps]);
  const job = model.shown();

  if (!job) {
    return (
      <Page title="Job">
        {details.problem ? (
          <>
            <ProblemNotice problem={details.problem} retry={() => void model.loadDetails()} />
            <p>
              <a href={href("live")}>Back to the live view</a>
            </p>
          </>
        ) : (
          <Spinner label="Loading the job" />
        )}
      </Page>
    );
  }
  return (
    <Page
      title={job.subject ?? job.id}
      actions={
        <>
          {!hasEnded(job.status) && <Connection feed={model.feed} />}
          <Cancel model={model} job={job} />
        </>
      }
    >
      <ProblemNotice problem={details.problem} retry={() => void model.loadDetails()} />
      {run.gap && <Notice kind="warning">Some events of this job are missing. {run.gap.message}</Notice>}
      <Overview job={job} result={details.job?.result ?? null} />
      {[...run.texts].map(([key, text]) => (
        <Card key={key} title="Answer">
          <p class="answer">{text}</p>
        </Card>
      ))}
      <ToolCalls calls={[...run.calls.values()]} />
      <PastCalls job={job} />
      <Card title="Timeline">
        <Timeline entries={entriesOf(steps)} from={job.createdAt} />
        {steps.length === 0 && !history.loading && <p class="faint">Nothing has happened yet.</p>}
        {history.nextCursor && (
          <p class="faint">
            Events between {formatNumber(history.steps.length)} loaded ones and the latest are missing here.{" "}
            <Button busy={history.loading} onClick={() => void model.loadHistory()}>
              Load more events
            </Button>
          </p>
        )}
      </Card>
      <Card title="Raw events">
        <ProblemNotice problem={history.problem} retry={() => void model.loadHistory()} />
        <RawEvents steps={steps} more={history.nextCursor !== null} loading={history.loading} onMore={() => void model.loadHistory()} />
      </Card>
    </Page>
  );
}

function Overview({ job, result }: { job: LiveJob; result: Record<string, unknown> | null }) {
  const ended = hasEnded(job.status);
  return (
    <Card>
      <div class="job-status" role="status">
        <StatusBadge status={job.status} />
        {!ended && job.phase && <span>{job.phase}</span>}
        {job.lost && <span class="faint">The orchestrator knows nothing of this job any more.</span>}
      </div>
      <ProgressBar percent={job.percent} status={job.status} label="Progress" />
      <Counters counters={job.counters} />
      {job.error && <Notice kind="error">{job.error}</Notice>}
      <dl class="facts">
        <Fact name="Kind">{job.kind ? asWords(job.kind) : "–"}</Fact>
        <Fact name="Owner">{job.ownerName ?? job.ownerId ?? "–"}</Fact>
        <Fact name="Workspace">{job.workspace}</Fact>
        <Fact name="Created">
          <DateTime time={job.createdAt} />
        </Fact>
        <Fact name="Ended">
          <DateTime time={job.endedAt} />
        </Fact>
        <Fact name="Duration">
          <Duration from={job.createdAt} to={ended ? (job.endedAt ?? job.lastEventAt ?? job.createdAt) : null} />
        </Fact>
        <Fact name="Id">
          <span class="mono">{job.id}</span>
        </Fact>
      </dl>
      {result && Object.keys(result).length > 0 && (
        <details>
          <summary>Result</summary>
          <Json value={result} label="Result" />
        </details>
      )}
    </Card>
  );
}

function Cancel({ model, job }: { model: JobModel; job: LiveJob }) {
  const current = useStore(session);
  const action = useAction();
  const [asks, setAsks] = useState(false);
  const [sent, setSent] = useState(false);
  if (current.kind !== "user" || !may(current.permissions, "tools:write") || hasEnded(job.status)) return null;
  return (
    <>
      <Button kind="danger" busy={action.busy} disabled={sent} onClick={() => setAsks(true)}>
        {sent ? "Cancelling…" : "Cancel the job"}
      </Button>
      {action.problem && (
        <Notice kind="warning" onClose={action.clear}>
          {action.problem.title}. {action.problem.detail}
        </Notice>
      )}
      {asks && (
        <Confirm
          title="Cancel this job?"
          action="Cancel the job"
          onCancel={() => setAsks(false)}
          onConfirm={() => {
            setAsks(false);
            void action.run(() => model.cancel()).then(setSent);
          }}
        >
          <p>{job.subject ?? job.id}</p>
          <p>What it has done so far stays. It cannot be resumed.</p>
        </Confirm>
      )}
    </>
  );
}

function ToolCalls({ calls }: { calls: readonly ToolCall[] }) {
  if (calls.length === 0) return null;
  return (
    <Card title="Tool calls">
      <ul class="calls">
        {calls.map((call) => (
          <li key={call.id}>
            <ToolCallDetails
              call={call}
              status={call.endedAt === null ? "running" : "completed"}
              startedAt={call.startedAt}
              endedAt={call.endedAt}
            />
          </li>
        ))}
      </ul>
    </Card>
  );
}

function Timeline({ entries, from }: { entries: readonly Entry[]; from: number }) {
  return (
    <ol class="timeline">
      {entries.map((entry) => (
        <li key={entry.key} class={`timeline-${toneOf(entry.first.type)}`}>
          <time class="timeline-time" dateTime={isoTime(entry.first.at)} title={formatDateTime(entry.first.at)}>
            +{formatDuration(entry.first.at - from)}
          </time>
          <div class="timeline-text">
            {entry.isGroup ? <Group entry={entry} /> : <Single step={entry.first} />}
          </div>
        </li>
      ))}
    </ol>
  );
}

function Single({ step }: { step: Step }) {
  return (
    <>
      <span>{step.text}</span> {step.text !== step.type && <span class="faint mono">{step.type}</span>}
    </>
  );
}

const GROUP_SHOWN = 100;

function Group({ entry }: { entry: Entry }) {
  const [open, setOpen] = useState(false);
  const { steps, first, last } = entry;
  return (
    <details onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>
        {formatNumber(steps.length)} steps in {formatDuration(last.at - first.at)}
        <span class="faint"> · last: {last.text}</span>
      </summary>
      {open && (
        <ol class="timeline-steps">
          {steps.slice(-GROUP_SHOWN).map((step) => (
            <li key={step.eventId}>
              <span class="faint number">{formatClock(step.at)}</span> <Single step={step} />
            </li>
          ))}
        </ol>
      )}
      {open && steps.length > GROUP_SHOWN && <p class="faint">The last {GROUP_SHOWN} steps; the raw events below have all.</p>}
    </details>
  );
}

interface RawEventsProps {
  steps: readonly Step[];
  more: boolean;
  loading: boolean;
  onMore: () => void;
}

function RawEvents({ steps, more, loading, onMore }: RawEventsProps) {
  const [shown, setShown] = useState(RAW_STEP);
  const hidden = steps.length - shown;
  return (
    <>
      <ul class="raw">
        {steps.slice(0, shown).map((step) => (
          <RawEvent key={step.eventId} step={step} />
        ))}
      </ul>
      {(hidden > 0 || more) && (
        <div class="buttons">
          <Button
            busy={loading}
            onClick={() => {
              setShown(shown + RAW_STEP);
              if (hidden < RAW_STEP && more) onMore();
            }}
          >
            Show more events
          </Button>
          <span class="faint">
            {formatNumber(Math.min(shown, steps.length))} of {formatNumber(steps.length)}
            {more && " loaded ones"}
          </span>
        </div>
      )}
      {loading && steps.length === 0 && <p class="faint">Loading events…</p>}
    </>
  );
}

function RawEvent({ step }: { step: Step }) {
  const [open, setOpen] = useState(false);
  const whole = { id: step.streamId ?? undefined, event_id: step.eventId, type: step.type, data: step.data, metadata: step.metadata ?? undefined };
  return (
    <li>
      <details onToggle={(event) => setOpen(event.currentTarget.open)}>
        <summary>
          <span class="faint number">{formatClock(step.at)}</span> <span class="mono">{step.type}</span>
          {step.streamId && <span class="faint mono">{step.streamId}</span>}
        </summary>
        {open && (
          <div class="call-data">
            <Json value={whole} label={`Event ${step.eventId}`} />
            <div>
              <CopyButton text={JSON.stringify(whole, null, 2)} label="Copy" />
            </div>
          </div>
        )}
      </details>
    </li>
  );
}
