import "./live.css";
import { useEffect, useMemo } from "preact/hooks";
import { problemOf } from "../api/problem";
import { formatClock, formatNumber } from "../lib/format";
import { useNow, useStore } from "../lib/hooks";
import { href, router } from "../lib/router";
import { session } from "../session";
import { Connection } from "../ui/connection";
import { Button, Notice, Page, ProblemNotice } from "../ui/parts";
import { FilterBar } from "./filter-bar";
import { type Filters, formatFilters, NO_FILTERS, parseFilters } from "./filters";
import { JobRows } from "./job-rows";
import { LiveModel, type NoticedGap } from "./model";

let model: LiveModel | null = null;

/** One model for as long as the same user is logged in: another page and back loses nothing. */
function liveModel(): LiveModel {
  if (model === null) {
    const created = new LiveModel();
    const userId = session.value.kind === "user" ? session.value.user.id : null;
    session.subscribe(() => {
      if (session.value.kind === "user" && session.value.user.id === userId) return;
      created.stop();
      if (model === created) model = null;
    });
    model = created;
  }
  return model;
}

export default function LivePage({ query }: { query: string }) {
  const live = useMemo(liveModel, []);
  const filters = useMemo(() => parseFilters(query), [query]);

  useEffect(() => {
    live.start();
    return () => live.stop();
  }, [live]);
  useEffect(() => {
    void live.setFilters(filters);
  }, [live, filters]);

  const change = (changed: Partial<Filters>): void => {
    router().go(href("live", {}, formatFilters({ ...filters, ...changed })), { replace: true });
  };

  return (
    <Page title="Live" class="live-page" actions={<Connection feed={live.feed} />}>
      <Gaps live={live} />
      <FilterBar live={live} filters={filters} onChange={change} />
      <Jobs live={live} filters={filters} onReset={() => change(NO_FILTERS)} />
    </Page>
  );
}

function Jobs({ live, filters, onReset }: { live: LiveModel; filters: Filters; onReset: () => void }) {
  useStore(live.jobs);
  const listing = useStore(live.listing);
  // With a period as filter, jobs leave it as time passes.
  const now = useNow(filters.since !== "");
  const rows = live.rows(now);
  const filtered = formatFilters(filters) !== "";
  return (
    <>
      <ProblemNotice problem={listing.error ? problemOf(listing.error) : null} retry={() => void live.reload()} />
      {rows.length === 0 && !listing.loading && !listing.error ? (
        <div class="empty">
          <p>{filtered ? "No job matches these filters." : "There are no jobs yet."}</p>
          {filtered ? <Button onClick={onReset}>Show all jobs</Button> : <a href={href("start")}>Start one</a>}
        </div>
      ) : (
        <JobRows
          rows={rows}
          loading={listing.loading}
          more={listing.nextCursor !== null && !listing.error}
          onMore={() => void live.loadMore()}
          summary={`${formatNumber(rows.length)}${listing.nextCursor === null ? "" : " or more"} jobs`}
        />
      )}
    </>
  );
}

function Gaps({ live }: { live: LiveModel }) {
  const gaps = useStore(live.gaps);
  return (
    <>
      {gaps.map((gap) => (
        <Notice key={gap.key} kind="warning" onClose={() => live.dismissGap(gap.key)}>
          <p>
            <strong>Some events are missing{periodOf(gap)}.</strong> {gap.message} The states of the jobs have been compared
            with the list; single steps in between are not shown.
          </p>
        </Notice>
      ))}
    </>
  );
}

function periodOf({ after, before }: NoticedGap): string {
  if (after !== null && before !== null) return ` between ${formatClock(after)} and ${formatClock(before)}`;
  return after !== null ? ` after ${formatClock(after)}` : "";
}
