import "./stream.css";
import { useEffect, useRef, useState } from "preact/hooks";
import { answerOf, api } from "../api/client";
import type { DeadLetter, InstanceStatus, StreamGap, StreamReport } from "../api/types";
import { asWords, formatDuration, formatNumber, formatRate, parseTime } from "../lib/format";
import { useLoaded, usePages } from "../lib/hooks";
import { href, router } from "../lib/router";
import { parseJson } from "../lib/untrusted";
import { Age, Button, Card, DateTime, Fact, Json, Notice, Page, ProblemNotice, SelectField, Spinner, Table } from "../ui/parts";
import { Paged } from "../ui/paged";
import { TasksReport, useTasks } from "../ui/tasks";
import { rateOf, type Sample, withSample } from "./rate";

const REPORT_INTERVAL_MS = 5_000;
const PAGE = 50;
/** Instances report every five seconds. */
const UNREPORTED_MS = 20_000;
/** A consumer that has asked for nothing for so long is shown as silent. */
const SILENT_MS = 60_000;

const STATES = ["open", "closed", "all"] as const;
type State = (typeof STATES)[number];

export default function StreamPage({ query }: { query: string }) {
  const wanted = new URLSearchParams(query).get("letters");
  const state = STATES.find((name) => name === wanted) ?? "open";
  const samples = useRef<readonly Sample[]>([]);
  const report = useLoaded(async () => {
    const summary = await answerOf(api.GET("/admin/operations"));
    samples.current = withSample(samples.current, { at: performance.now(), added: summary.stream.entries_added });
    return { ...summary, rate: rateOf(samples.current) };
  });
  useEffect(() => {
    const timer = setInterval(() => {
      if (document.visibilityState === "visible") void report.reload();
    }, REPORT_INTERVAL_MS);
    return () => clearInterval(timer);
  }, [report.reload]);
  return (
    <Page title="Stream">
      <ProblemNotice problem={report.problem} retry={() => void report.reload()} />
      {report.data ? (
        <>
          <Events report={report.data.stream} rate={report.data.rate} />
          <Instances instances={report.data.instances} />
          <Consumers group={report.data.stream.group} />
          <Gaps gaps={report.data.gaps} />
        </>
      ) : (
        report.loading && <Spinner label="Loading the stream" />
      )}
      <DeadLetters key={state} state={state} onChanged={() => void report.reload()} />
    </Page>
  );
}

function Events({ report, rate }: { report: StreamReport; rate: number | null }) {
  const { group } = report;
  return (
    <Card title="Events">
      <dl class="facts figures">
        <Figure name="Events per second" value={rate === null ? "–" : formatRate(rate)} />
        <Figure name="In the stream" value={formatNumber(report.length)} />
        <Figure name="Not yet read" value={group === null ? "–" : group.lag === null ? "unknown" : formatNumber(group.lag)} />
        <Figure name="Read, not yet stored" value={group === null ? "–" : formatNumber(group.pending)} />
        <Figure name="Open dead letters" value={formatNumber(report.open_dead_letters)} alarming={report.open_dead_letters > 0} />
        <Fact name="Oldest">
          <Age time={timeOfId(report.first_id)} />
        </Fact>
        <Fact name="Latest">
          <Age time={timeOfId(report.last_id)} />
        </Fact>
      </dl>
      <p class="faint">
        Stream <span class="mono">{report.stream}</span>
        {group && (
          <>
            , group <span class="mono">{group.name}</span>, read up to <span class="mono">{group.last_delivered_id}</span>
          </>
        )}
      </p>
    </Card>
  );
}

function Instances({ instances }: { instances: readonly InstanceStatus[] }) {
  // Compared with the latest report instead of the clock of the browser, which may be wrong.
  const newest = Math.max(...instances.map(({ reported_at }) => parseTime(reported_at) ?? 0));
  return (
    <Card title="Instances">
      {instances.length === 0 ? (
        <Notice kind="warning">No instance has reported.</Notice>
      ) : (
        <Table label="Instances" head={["Instance", "State", "Version", "Open streams", "Agent runs", "Memory", "Started", "Last report"]}>
          {instances.map((instance) => (
            <tr key={instance.name}>
              <th scope="row" class="mono instance-name">
                {instance.name}
              </th>
              <td>
                <InstanceState instance={instance} newest={newest} />
              </td>
              <td>{instance.version}</td>
              <td class="number">{formatNumber(instance.open_streams)}</td>
              <td class="number">{formatNumber(instance.agent_runs)}</td>
              <td class="number">{formatNumber(Math.round(instance.resident_bytes / 2 ** 20))} MiB</td>
              <td>
                <Age time={parseTime(instance.started_at)} />
              </td>
              <td>
                <Age time={parseTime(instance.reported_at)} />
              </td>
            </tr>
          ))}
        </Table>
      )}
    </Card>
  );
}

const STATE_BADGES: Record<InstanceStatus["status"], string> = { healthy: "completed", degraded: "cancelled", unhealthy: "failed" };

function InstanceState({ instance, newest }: { instance: InstanceStatus; newest: number }) {
  const { status, problems, not_ready } = instance;
  if (newest - (parseTime(instance.reported_at) ?? 0) > UNREPORTED_MS) return <span class="badge badge-failed">Does not report</span>;
  return (
    <>
      <span class={`badge badge-${STATE_BADGES[status]}`}>{asWords(status)}</span>
      {not_ready !== null && <p>Gets no traffic: {not_ready}</p>}
      {Object.entries(problems).map(([check, problem]) => (
        <p key={check}>
          {check}: {problem}
        </p>
      ))}
    </>
  );
}

function Consumers({ group }: { group: StreamReport["group"] }) {
  return (
    <Card title="Consumers">
      {group === null || group.consumers.length === 0 ? (
        <Notice kind="warning">No instance stores events.</Notice>
      ) : (
        <Table label="Consumers" head={["Instance", "Pending", "Last asked for events"]}>
          {group.consumers.map((consumer) => (
            <tr key={consumer.name}>
              <th scope="row" class="mono instance-name">
                {consumer.name}
              </th>
              <td class="number">{formatNumber(consumer.pending)}</td>
              <td>
                {formatDuration(consumer.idle_ms)} ago{" "}
                {consumer.idle_ms > SILENT_MS && <span class="badge badge-cancelled">Silent</span>}
              </td>
            </tr>
          ))}
        </Table>
      )}
    </Card>
  );
}

/** Events that were lost before they could be stored. */
function Gaps({ gaps }: { gaps: readonly StreamGap[] }) {
  return (
    <Card title="Gaps">
      {gaps.length === 0 ? (
        <div class="empty">No events are known to be lost.</div>
      ) : (
        <Table label="Gaps" head={["Noticed", "Lost events", "Reason", "After", "Before"]}>
          {gaps.map((gap) => (
            <tr key={`${gap.after} ${gap.before}`}>
              <th scope="row">
                <DateTime time={parseTime(gap.noticed_at)} />
              </th>
              <td class="number">{formatNumber(gap.entries)}</td>
              <td>{gap.reason}</td>
              <td class="mono">{gap.after}</td>
              <td class="mono">{gap.before}</td>
            </tr>
          ))}
        </Table>
      )}
    </Card>
  );
}

function Figure({ name, value, alarming = false }: { name: string; value: string; alarming?: boolean }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd class={`figure number ${alarming ? "figure-alarming" : ""}`}>{value}</dd>
    </div>
  );
}

/** The ids of a stream begin with a time. */
function timeOfId(id: string | null): number | null {
  const milliseconds = /^(\d{1,16})-/.exec(id ?? "")?.[1];
  return milliseconds === undefined ? null : Number(milliseconds);
}

function DeadLetters({ state, onChanged }: { state: State; onChanged: () => void }) {
  const letters = usePages(
    (cursor) => answerOf(api.GET("/admin/stream/dead-letters", { params: { query: { state, limit: PAGE, cursor } } })),
    state,
  );
  /** What has been replayed or discarded here stays in sight, with its outcome. */
  const [closed, setClosed] = useState<ReadonlyMap<string, DeadLetter>>(new Map());
  const tasks = useTasks();
  const close = async (letter: DeadLetter, call: Promise<DeadLetter>): Promise<void> => {
    const answer = await call;
    setClosed((before) => new Map(before).set(letter.id, answer));
    onChanged();
  };
  const ask = (letter: DeadLetter, what: "replay" | "discard"): void => {
    const params = { path: { letter_id: letter.id } };
    if (what === "replay") {
      tasks.ask({
        title: "Publish this entry again?",
        action: "Publish it again",
        text: (
          <>
            <p class="mono">{letter.id}</p>
            <p>It becomes the newest entry of the stream, and is stored if its defect is gone. Otherwise it comes back here.</p>
          </>
        ),
        done: `${letter.id} is published again.`,
        run: () => close(letter, answerOf(api.POST("/admin/stream/dead-letters/{letter_id}/replay", { params }))),
      });
    } else {
      tasks.ask({
        title: "Discard this entry?",
        action: "Discard it",
        text: (
          <>
            <p class="mono">{letter.id}</p>
            <p>Its event is not stored. The entry stays in the list of closed ones.</p>
          </>
        ),
        done: `${letter.id} is discarded.`,
        run: () => close(letter, answerOf(api.POST("/admin/stream/dead-letters/{letter_id}/discard", { params }))),
      });
    }
  };
  return (
    <Card
      title="Dead letters"
      actions={
        <SelectField
          label="Show"
          value={state}
          options={[
            { value: "open", label: "Open ones" },
            { value: "closed", label: "Closed ones" },
            { value: "all", label: "All" },
          ]}
          onChange={(value) => router().go(href("stream", {}, value === "open" ? "" : `letters=${value}`), { replace: true })}
        />
      }
    >
      <p class="faint">Entries of the stream that could not be stored as events.</p>
      <TasksReport tasks={tasks} />
      <Paged
        pages={letters}
        noun="dead letter"
        plural="dead letters"
        empty={<p>{state === "open" ? "There are none: all events are stored." : "There are none."}</p>}
      >
        {(items) => (
          <ul class="letters">
            {items.map((letter) => (
              <Letter key={letter.id} letter={closed.get(letter.id) ?? letter} busy={tasks.busy} onAct={(what) => ask(letter, what)} />
            ))}
          </ul>
        )}
      </Paged>
    </Card>
  );
}

function Letter({ letter, busy, onAct }: { letter: DeadLetter; busy: boolean; onAct: (what: "replay" | "discard") => void }) {
  const isOpen = letter.closed_at === null;
  return (
    <li>
      <div class="letter-head">
        <div class="letter-text">
          <strong>{letter.reason}</strong>
          <span class="faint">
            <span class="mono">{letter.id}</span> · <Age time={parseTime(letter.created_at)} />
          </span>
          {!isOpen && (
            <span>
              <span class="badge badge-completed">{letter.closed_how ?? "closed"}</span> by {letter.closed_by ?? "somebody"},{" "}
              <DateTime time={parseTime(letter.closed_at)} />
              {letter.replayed_as && (
                <>
                  , as <span class="mono">{letter.replayed_as}</span>
                </>
              )}
            </span>
          )}
        </div>
        {isOpen && (
          <div class="buttons">
            <Button busy={busy} label={`Replay ${letter.id}`} onClick={() => onAct("replay")}>
              Replay
            </Button>
            <Button kind="danger" busy={busy} label={`Discard ${letter.id}`} onClick={() => onAct("discard")}>
              Discard
            </Button>
          </div>
        )}
      </div>
      <details>
        <summary>Content</summary>
        <Json value={parseJson(letter.fields) ?? letter.fields} label={`Content of ${letter.id}`} />
      </details>
    </li>
  );
}
