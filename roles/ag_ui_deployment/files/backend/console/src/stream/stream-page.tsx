import "./stream.css";
import { useEffect, useState } from "preact/hooks";
import { answerOf, api } from "../api/client";
import type { DeadLetter, StreamReport } from "../api/types";
import { formatDuration, formatNumber, parseTime } from "../lib/format";
import { useAction, useLoaded } from "../lib/hooks";
import { href, router } from "../lib/router";
import { parseJson } from "../lib/untrusted";
import { Age, Button, Card, Confirm, DateTime, Json, Notice, Page, ProblemNotice, SelectField, Spinner } from "../ui/parts";

const REPORT_INTERVAL_MS = 5_000;
const PAGE = 50;
/** A consumer that has asked for nothing for so long is shown as silent. */
const SILENT_MS = 60_000;

const STATES = ["open", "closed", "all"] as const;
type State = (typeof STATES)[number];

export default function StreamPage({ query }: { query: string }) {
  const wanted = new URLSearchParams(query).get("letters");
  const state = STATES.find((name) => name === wanted) ?? "open";
  const report = useLoaded(() => answerOf(api.GET("/admin/stream")));
  useEffect(() => {
    const timer = setInterval(() => {
      if (document.visibilityState === "visible") void report.reload();
    }, REPORT_INTERVAL_MS);
    return () => clearInterval(timer);
  }, [report.reload]);
  return (
    <Page title="Stream">
      <ProblemNotice problem={report.problem} retry={() => void report.reload()} />
      {report.data ? <Report report={report.data} /> : report.loading && <Spinner label="Loading the stream" />}
      <DeadLetters key={state} state={state} onChanged={() => void report.reload()} />
    </Page>
  );
}

function Report({ report }: { report: StreamReport }) {
  const { group } = report;
  return (
    <>
      <Card title="Events">
        <dl class="facts">
          <Figure name="In the stream" value={formatNumber(report.length)} />
          <Figure name="Not yet read" value={group === null ? "–" : group.lag === null ? "unknown" : formatNumber(group.lag)} />
          <Figure name="Read, not yet stored" value={group === null ? "–" : formatNumber(group.pending)} />
          <Figure name="Open dead letters" value={formatNumber(report.open_dead_letters)} alarming={report.open_dead_letters > 0} />
          <div>
            <dt>Oldest</dt>
            <dd>
              <Age time={timeOfId(report.first_id)} />
            </dd>
          </div>
          <div>
            <dt>Latest</dt>
            <dd>
              <Age time={timeOfId(report.last_id)} />
            </dd>
          </div>
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
      <Card title="Consumers">
        {group === null || group.consumers.length === 0 ? (
          <Notice kind="warning">No instance stores events.</Notice>
        ) : (
          <div class="table-box">
            <table>
              <thead>
                <tr>
                  <th scope="col">Instance</th>
                  <th scope="col">Pending</th>
                  <th scope="col">Last asked for events</th>
                </tr>
              </thead>
              <tbody>
                {group.consumers.map((consumer) => (
                  <tr key={consumer.name}>
                    <td class="mono">{consumer.name}</td>
                    <td class="number">{formatNumber(consumer.pending)}</td>
                    <td>
                      {formatDuration(consumer.idle_ms)} ago
                      {consumer.idle_ms > SILENT_MS && <span class="badge badge-cancelled">Silent</span>}
                    </td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        )}
      </Card>
    </>
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

interface Letters {
  readonly items: readonly DeadLetter[];
  readonly next: string | null;
}

function DeadLetters({ state, onChanged }: { state: State; onChanged: () => void }) {
  const loadPage = async (cursor: string | null): Promise<Letters> => {
    const query = { state, limit: PAGE, ...(cursor && { cursor }) };
    const page = await answerOf(api.GET("/admin/stream/dead-letters", { params: { query } }));
    return { items: page.items, next: page.next_cursor ?? null };
  };
  const first = useLoaded(() => loadPage(null), state);
  const [rest, setRest] = useState<Letters | null>(null);
  /** What has been replayed or discarded here stays in sight, with its outcome. */
  const [closed, setClosed] = useState<ReadonlyMap<string, DeadLetter>>(new Map());
  const more = useAction();
  const act = useAction();
  const [asks, setAsks] = useState<{ letter: DeadLetter; what: "replay" | "discard" } | null>(null);

  const letters = [...(first.data?.items ?? []), ...(rest?.items ?? [])].map((letter) => closed.get(letter.id) ?? letter);
  const next = rest ? rest.next : (first.data?.next ?? null);

  const close = async (letter: DeadLetter, what: "replay" | "discard"): Promise<void> => {
    const params = { path: { letter_id: letter.id } };
    const answer = await answerOf(
      what === "replay"
        ? api.POST("/admin/stream/dead-letters/{letter_id}/replay", { params })
        : api.POST("/admin/stream/dead-letters/{letter_id}/discard", { params }),
    );
    setClosed((before) => new Map(before).set(letter.id, answer));
    onChanged();
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
      <ProblemNotice problem={first.problem} retry={() => void first.reload()} />
      <ProblemNotice problem={act.problem} />
      {first.data === null && first.loading && <Spinner label="Loading dead letters" />}
      {first.data && letters.length === 0 && <div class="empty">{state === "open" ? "There are none: all events are stored." : "There are none."}</div>}
      <ul class="letters">
        {letters.map((letter) => (
          <Letter key={letter.id} letter={letter} busy={act.busy} onAct={(what) => setAsks({ letter, what })} />
        ))}
      </ul>
      <ProblemNotice problem={more.problem} />
      {next && (
        <div class="buttons">
          <Button
            busy={more.busy}
            onClick={() =>
              void more.run(async () => {
                const page = await loadPage(next);
                setRest({ items: [...(rest?.items ?? []), ...page.items], next: page.next });
              })
            }
          >
            Show older ones
          </Button>
        </div>
      )}
      {asks && (
        <Confirm
          title={asks.what === "replay" ? "Publish this entry again?" : "Discard this entry?"}
          action={asks.what === "replay" ? "Publish it again" : "Discard it"}
          onCancel={() => setAsks(null)}
          onConfirm={() => {
            setAsks(null);
            void act.run(() => close(asks.letter, asks.what));
          }}
        >
          <p class="mono">{asks.letter.id}</p>
          <p>
            {asks.what === "replay"
              ? "It becomes the newest entry of the stream, and is stored if its defect is gone. Otherwise it comes back here."
              : "Its event is not stored. The entry stays in the list of closed ones."}
          </p>
        </Confirm>
      )}
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
            <Button disabled={busy} label={`Replay ${letter.id}`} onClick={() => onAct("replay")}>
              Replay
            </Button>
            <Button kind="danger" disabled={busy} label={`Discard ${letter.id}`} onClick={() => onAct("discard")}>
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
