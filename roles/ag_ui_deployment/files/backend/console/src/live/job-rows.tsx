import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { hasEnded } from "../api/types";
import { asWords } from "../lib/format";
import { useMedia } from "../lib/hooks";
import { href } from "../lib/router";
import { memo } from "../lib/memo";
import { Counters } from "../ui/counters";
import { Age, Button, Duration, ProgressBar, StatusBadge, statusLabel } from "../ui/parts";
import type { LiveJob } from "./live-job";
import { RowKeys, type RowWindow, rowWindow } from "./row-window";

// As in live.css.
const ROW_HEIGHT = 56;
const CARD_HEIGHT = 148;
const COLUMNS = ["State", "Job", "Owner", "Progress", "Counters", "Last event", "Duration"];

interface Props {
  rows: readonly LiveJob[];
  loading: boolean;
  more: boolean;
  onMore: () => void;
  summary: string;
}

/** The table of jobs. Only the rows in sight are in the document; it tells screen readers how many there are. */
export function JobRows({ rows, loading, more, onMore, summary }: Props) {
  const narrow = useMedia("(max-width: 860px)");
  const rowHeight = narrow ? CARD_HEIGHT : ROW_HEIGHT;
  const { box, range } = useRowWindow(rows.length, rowHeight);
  const rowKeys = useMemo(() => new RowKeys(), []);
  const shown = rows.slice(range.start, range.end);
  const keys = rowKeys.assign(shown.map(({ id }) => id));

  const atEnd = range.end >= rows.length;
  useEffect(() => {
    if (atEnd && more && !loading) onMore();
  }, [atEnd, more, loading, rows.length]);

  const moveFocus = (event: KeyboardEvent): void => {
    const step = event.key === "ArrowDown" ? 1 : event.key === "ArrowUp" ? -1 : 0;
    const row = document.activeElement?.closest("[data-row]");
    if (step === 0 || !row) return;
    const next = step > 0 ? row.nextElementSibling : row.previousElementSibling;
    const link = next?.querySelector("a");
    if (!link) return;
    event.preventDefault();
    link.focus();
  };

  return (
    <div class="jobs">
      <p class="jobs-summary faint">{summary}</p>
      <div class={`job-table ${narrow ? "job-cards" : ""}`} role="table" aria-label="Jobs" aria-rowcount={rows.length + 1} onKeyDown={moveFocus}>
        <div role="rowgroup" class="job-head">
          <div class="job-row" role="row" aria-rowindex={1}>
            {COLUMNS.map((column) => (
              <span key={column} role="columnheader">
                {column}
              </span>
            ))}
          </div>
        </div>
        <div role="rowgroup" ref={box} class="job-body">
          <div style={{ height: `${range.before}px` }} role="presentation" />
          {shown.map((job, index) => (
            <JobRow key={keys[index]} job={job} index={range.start + index + 2} />
          ))}
          <div style={{ height: `${range.after}px` }} role="presentation" />
        </div>
      </div>
      <div class="jobs-end">
        {loading ? <span class="faint">Loading jobs…</span> : more ? <Button onClick={onMore}>Show older jobs</Button> : null}
      </div>
    </div>
  );
}

/** Follows the scrolling of the document. */
function useRowWindow(count: number, rowHeight: number) {
  const box = useRef<HTMLDivElement>(null);
  const measure = (): RowWindow => {
    const top = box.current ? -box.current.getBoundingClientRect().top : 0;
    return rowWindow(top, window.innerHeight, rowHeight, count);
  };
  const [range, setRange] = useState<RowWindow>(() => rowWindow(0, window.innerHeight, rowHeight, count));
  const update = useRef(() => {});
  update.current = () => {
    const next = measure();
    setRange((before) => (before.start === next.start && before.end === next.end && before.after === next.after ? before : next));
  };
  useLayoutEffect(() => update.current(), [count, rowHeight]);
  useEffect(() => {
    let requested = 0;
    const onScroll = (): void => {
      requested ||= requestAnimationFrame(() => {
        requested = 0;
        update.current();
      });
    };
    window.addEventListener("scroll", onScroll, { passive: true });
    window.addEventListener("resize", onScroll);
    return () => {
      cancelAnimationFrame(requested);
      window.removeEventListener("scroll", onScroll);
      window.removeEventListener("resize", onScroll);
    };
  }, []);
  // The number of rows may have changed since the range was measured.
  const end = Math.min(range.end, count);
  const start = Math.min(range.start, end);
  return { box, range: { start, end, before: start * rowHeight, after: (count - end) * rowHeight } };
}

/** Rendered again only if its job has changed. */
const JobRow = memo(function JobRow({ job, index }: { job: LiveJob; index: number }) {
  const subject = job.subject ?? job.id;
  const ended = hasEnded(job.status);
  const link = useRef<HTMLAnchorElement>(null);
  // The focus must not go over to the next job in this row.
  useLayoutEffect(() => () => link.current?.blur(), [job.id]);
  return (
    <div class="job-row" role="row" aria-rowindex={index} data-row>
      <span role="cell" class="cell-state">
        <StatusBadge status={job.status} />
      </span>
      <span role="cell" class="cell-job">
        <a ref={link} href={href("job", { id: job.id })} title={subject}>
          {withoutScheme(subject)}
        </a>
        <span class="faint">
          {job.kind ? asWords(job.kind) : "Job"} · {job.workspace}
          {job.lost && " · lost"}
        </span>
      </span>
      <span role="cell" class="cell-owner" title={job.ownerName ?? undefined}>
        {job.ownerName ?? <span class="faint no-owner">–</span>}
      </span>
      <span role="cell" class="cell-progress">
        <ProgressBar percent={job.percent} status={job.status} label={`Progress of ${subject}`} />
        <span class="phase">{ended ? "" : (job.phase ?? "")}</span>
      </span>
      <span role="cell" class="cell-counters">
        <Counters counters={job.counters} />
      </span>
      <span role="cell" class="cell-last">
        <span class="last-text" title={job.error ?? job.lastEvent ?? undefined}>
          {job.error ?? job.lastEvent ?? (ended ? statusLabel(job.status) : "")}
        </span>
        <span class="faint">
          <Age time={job.lastEventAt} />
        </span>
      </span>
      <span role="cell" class="cell-duration">
        <Duration from={job.createdAt} to={ended ? (job.endedAt ?? job.lastEventAt ?? job.createdAt) : null} />
      </span>
    </div>
  );
});

/** The beginning of an address is the same in most rows. */
function withoutScheme(subject: string): string {
  return subject.replace(/^https?:\/\//, "");
}
