import "./audit.css";
import { useEffect, useState } from "preact/hooks";
import { answerOf, api } from "../api/client";
import { type AuditEntry, OUTCOMES, type Verification } from "../api/types";
import { download } from "../lib/download";
import { asWords, formatNumber, parseTime } from "../lib/format";
import { useAction, usePages } from "../lib/hooks";
import { href, router } from "../lib/router";
import { Button, Card, DateTime, Json, OutcomeBadge, Page, ProblemNotice, SelectField, Table, TextField } from "../ui/parts";
import { Paged } from "../ui/paged";
import { PeriodFields } from "../ui/period-fields";
import {
  ACTION_LABELS,
  ACTIONS,
  actionLabel,
  type AuditFilters,
  auditQuery,
  formatAuditFilters,
  NO_AUDIT_FILTERS,
  parseAuditFilters,
} from "./filters";

const PAGE = 50;
const COLUMNS = ["Time", "Action", "Outcome", "Who", "On what", "From", "Entry"];

export default function AuditPage({ query }: { query: string }) {
  const filters = parseAuditFilters(query);
  const key = formatAuditFilters(filters);
  const entries = usePages(
    (cursor) => answerOf(api.GET("/admin/audit", { params: { query: { ...auditQuery(filters, Date.now()), limit: PAGE, cursor } } })),
    key,
  );
  return (
    <Page title="Audit">
      <Integrity />
      <Card title="Entries" actions={<Export filters={filters} />}>
        <Search filters={filters} onRefresh={() => void entries.reload()} />
        <Paged
          pages={entries}
          noun="entry"
          plural="entries"
          empty={<p>{key ? "No entry matches these filters." : "There are no entries."}</p>}
        >
          {(items) => (
            <Table label="Entries of the audit log" head={COLUMNS}>
              {items.map((entry) => (
                <Row key={entry.seq} entry={entry} filters={filters} />
              ))}
            </Table>
          )}
        </Paged>
      </Card>
    </Page>
  );
}

function Row({ entry, filters }: { entry: AuditEntry; filters: AuditFilters }) {
  const [open, setOpen] = useState(false);
  const linked = (changed: Partial<AuditFilters>): string => href("audit", {}, formatAuditFilters({ ...filters, ...changed }));
  return (
    <>
      <tr>
        <td class="audit-time">
          <DateTime time={parseTime(entry.at)} />
        </td>
        <th scope="row">{actionLabel(entry.action)}</th>
        <td>
          <OutcomeBadge outcome={entry.outcome} />
        </td>
        <td>{entry.actor ? <a href={linked({ actor: entry.actor_id ?? entry.actor })}>{entry.actor}</a> : "–"}</td>
        <td>{entry.target ? <a href={linked({ target: entry.target })}>{entry.target}</a> : "–"}</td>
        <td>{entry.address ?? "–"}</td>
        <td>
          <Button kind="quiet" label={`Entry ${entry.seq}`} expanded={open} onClick={() => setOpen(!open)}>
            {entry.seq}
          </Button>
        </td>
      </tr>
      {open && (
        <tr>
          <td colSpan={COLUMNS.length}>
            <Json value={entry} label={`Entry ${entry.seq}`} />
          </td>
        </tr>
      )}
    </>
  );
}

function show(filters: AuditFilters): void {
  router().go(href("audit", {}, formatAuditFilters(filters)), { replace: true });
}

function Search({ filters, onRefresh }: { filters: AuditFilters; onRefresh: () => void }) {
  const [actor, setActor] = useState(filters.actor);
  const [target, setTarget] = useState(filters.target);
  const [clearings, setClearings] = useState(0);
  useEffect(() => setActor(filters.actor), [filters.actor]);
  useEffect(() => setTarget(filters.target), [filters.target]);
  const change = (changed: Partial<AuditFilters>): void => {
    const wanted = { ...filters, actor: actor.trim(), target: target.trim(), ...changed };
    // The same filters again: there may be newer entries.
    if (formatAuditFilters(wanted) === formatAuditFilters(filters)) onRefresh();
    else show(wanted);
  };
  return (
    <form
      class="filter-fields"
      role="search"
      aria-label="Audit log"
      onSubmit={(event) => {
        event.preventDefault();
        change({});
      }}
    >
      <TextField label="Who (address or id)" type="search" maxLength={512} value={actor} onInput={setActor} />
      <SelectField
        label="Action"
        value={filters.action}
        options={[{ value: "", label: "Any action" }, ...ACTIONS.map((action) => ({ value: action, label: ACTION_LABELS[action] }))]}
        onChange={(action) => change({ action: action as AuditFilters["action"] })}
      />
      <SelectField
        label="Outcome"
        value={filters.outcome}
        options={[{ value: "", label: "Any outcome" }, ...OUTCOMES.map((outcome) => ({ value: outcome, label: asWords(outcome) }))]}
        onChange={(outcome) => change({ outcome: outcome as AuditFilters["outcome"] })}
      />
      <TextField label="On what" type="search" maxLength={512} value={target} onInput={setTarget} />
      <PeriodFields key={clearings} label="Time" since={filters.since} until={filters.until} onChange={change} />
      <Button kind="primary" type="submit">
        Search
      </Button>
      {formatAuditFilters(filters) !== "" && (
        <Button
          kind="quiet"
          onClick={() => {
            setClearings(clearings + 1);
            show(NO_AUDIT_FILTERS);
          }}
        >
          Clear filters
        </Button>
      )}
    </form>
  );
}

function Export({ filters }: { filters: AuditFilters }) {
  const action = useAction();
  const save = (format: "csv" | "jsonl"): void =>
    void action.run(async () => {
      const query = auditQuery(filters, Date.now());
      // Renews the session if need be, and says what is wrong: a download cannot.
      await answerOf(api.GET("/admin/audit", { params: { query: { ...query, limit: 1 } } }));
      download(`/admin/audit/export?${new URLSearchParams({ format, ...query }).toString()}`);
    });
  return (
    <div class="buttons">
      <ProblemNotice problem={action.problem} />
      <Button busy={action.busy} onClick={() => save("csv")}>
        Export as CSV
      </Button>
      <Button busy={action.busy} onClick={() => save("jsonl")}>
        Export as JSON lines
      </Button>
    </div>
  );
}

function Integrity() {
  const [result, setResult] = useState<Verification | null>(null);
  const action = useAction();
  const verify = (): void => {
    setResult(null);
    void action.run(async () => setResult(await answerOf(api.GET("/admin/audit/verify"))));
  };
  return (
    <Card
      title="Integrity"
      actions={
        <Button busy={action.busy} onClick={verify}>
          Verify the log
        </Button>
      }
    >
      <p class="faint">Each entry contains the hash of the one before, and checkpoints sign the chain. A verification reads all of it.</p>
      <ProblemNotice problem={action.problem} />
      <div role="status">
        {action.busy && <p>Verifying… This takes minutes if the log is long.</p>}
        {result && <Result result={result} />}
      </div>
    </Card>
  );
}

function Result({ result }: { result: Verification }) {
  const { intact, broken, first_seq, last_seq, signed_through, checkpoints } = result;
  return (
    <div class={`notice notice-${intact ? "success" : "error"}`}>
      <div class="notice-text">
        <p>
          <strong>{intact ? "The log is intact." : `The log is broken${broken ? ` at entry ${broken.seq}` : ""}.`}</strong>{" "}
          {broken && `Entry ${broken.seq}: ${broken.reason}.`}
        </p>
        <p>
          {last_seq === null
            ? "It has no entries."
            : `Verified: entries ${first_seq ?? last_seq} to ${last_seq}. ${signedText(last_seq, signed_through, checkpoints)}`}
        </p>
      </div>
    </div>
  );
}

function signedText(last: number, signed: number | null, checkpoints: number): string {
  if (signed === null) return "No checkpoint signs them yet.";
  const rest = last - signed;
  const after = rest > 0 ? ` The ${formatNumber(rest)} after it ${rest === 1 ? "is" : "are"} only chained.` : "";
  const signers = checkpoints === 1 ? "1 checkpoint signs" : `${formatNumber(checkpoints)} checkpoints sign`;
  return `${signers} them up to entry ${signed}.${after}`;
}
