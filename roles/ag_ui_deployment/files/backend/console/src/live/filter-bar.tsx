import { useState } from "preact/hooks";
import { type JobStatus, STATUSES } from "../api/types";
import { asWords, formatNumber } from "../lib/format";
import { useNow, useStore } from "../lib/hooks";
import { session } from "../session";
import { Button, SelectField, statusLabel } from "../ui/parts";
import { PeriodFields } from "../ui/period-fields";
import { type Filters, formatFilters } from "./filters";
import type { LiveModel } from "./model";

/** Counts are exact up to here. */
const COUNTED_MAX = 10_000;
const OPTIONS_MAX = 100;

interface Props {
  live: LiveModel;
  filters: Filters;
  onChange: (changed: Partial<Filters>) => void;
}

export function FilterBar({ live, filters, onChange }: Props) {
  // Once a second, not with every event: jobs may bring new options.
  useNow();
  const counts = useStore(live.counts);
  const [clearings, setClearings] = useState(0);
  const options = optionsOf(live, filters);
  const total = counts && STATUSES.reduce((sum, status) => sum + counts[status], 0);

  return (
    <section class="filters" aria-label="Filters">
      <div class="state-tabs" role="group" aria-label="State">
        <StateTab label="All" count={total} selected={filters.status === ""} onClick={() => onChange({ status: "" })} />
        {STATUSES.map((status: JobStatus) => (
          <StateTab
            key={status}
            label={statusLabel(status)}
            status={status}
            count={counts && counts[status]}
            selected={filters.status === status}
            onClick={() => onChange({ status })}
          />
        ))}
      </div>
      <div class="filter-fields">
        <SelectField label="Kind" value={filters.kind} options={options.kinds} onChange={(kind) => onChange({ kind })} />
        <SelectField label="Workspace" value={filters.workspace} options={options.workspaces} onChange={(workspace) => onChange({ workspace })} />
        <SelectField label="Owner" value={filters.owner} options={options.owners} onChange={(owner) => onChange({ owner })} />
        <PeriodFields key={clearings} label="Created" since={filters.since} until={filters.until} onChange={onChange} />
        {formatFilters(filters) !== "" && (
          <Button
            kind="quiet"
            onClick={() => {
              setClearings(clearings + 1);
              onChange({ status: "", kind: "", workspace: "", owner: "", since: "", until: "" });
            }}
          >
            Clear filters
          </Button>
        )}
      </div>
    </section>
  );
}

interface TabProps {
  label: string;
  status?: JobStatus;
  count: number | null;
  selected: boolean;
  onClick: () => void;
}

function StateTab({ label, status, count, selected, onClick }: TabProps) {
  return (
    <button type="button" class={`state-tab ${status ? `state-${status}` : ""}`} aria-pressed={selected} onClick={onClick}>
      <span>{label}</span>
      {count !== null && <span class="state-count">{count >= COUNTED_MAX ? `${formatNumber(COUNTED_MAX)}+` : formatNumber(count)}</span>}
    </button>
  );
}

interface Option {
  value: string;
  label: string;
}

/** What can be chosen: what the known jobs have, and what is chosen already. */
function optionsOf(live: LiveModel, filters: Filters): { kinds: Option[]; workspaces: Option[]; owners: Option[] } {
  const kinds = new Set(["crawl", "ingest", "query"]);
  const workspaces = new Set<string>(["default"]);
  const owners = new Map<string, string>();
  const current = session.value;
  const own = current.kind === "user" ? current.user.id : "";
  if (current.kind === "user") for (const { workspace } of current.permissions.workspaces) workspaces.add(workspace);
  for (const job of live.jobs.values()) {
    if (job.kind && kinds.size < OPTIONS_MAX) kinds.add(job.kind);
    if (workspaces.size < OPTIONS_MAX) workspaces.add(job.workspace);
    if (job.ownerId && owners.size < OPTIONS_MAX) owners.set(job.ownerId, job.ownerName ?? job.ownerId);
  }
  if (filters.kind) kinds.add(filters.kind);
  if (filters.workspace) workspaces.add(filters.workspace);
  if (filters.owner && !owners.has(filters.owner)) owners.set(filters.owner, filters.owner);
  owners.delete(own);
  const byLabel = (a: Option, b: Option): number => a.label.localeCompare(b.label);
  return {
    kinds: [{ value: "", label: "All kinds" }, ...[...kinds].map((kind) => ({ value: kind, label: asWords(kind) })).sort(byLabel)],
    workspaces: [{ value: "", label: "All workspaces" }, ...[...workspaces].map((name) => ({ value: name, label: name })).sort(byLabel)],
    owners: [
      { value: "", label: "Everybody" },
      ...(own ? [{ value: own, label: "Me" }] : []),
      ...[...owners].map(([value, label]) => ({ value, label })).sort(byLabel),
    ],
  };
}
