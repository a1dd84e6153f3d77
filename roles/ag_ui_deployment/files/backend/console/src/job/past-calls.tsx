import { useEffect, useRef } from "preact/hooks";
import { answerOf, api } from "../api/client";
import { hasEnded, type ToolCallInfo } from "../api/types";
import { formatDuration, parseTime } from "../lib/format";
import { usePages, useStore } from "../lib/hooks";
import { href } from "../lib/router";
import type { LiveJob } from "../live/live-job";
import { may, session } from "../session";
import { Age, Button, Card, Fact, Json, OutcomeBadge, ProblemNotice } from "../ui/parts";

const PAGE = 50;

/** The calls of the API that started the job, asked for its state or cancelled it. */
export function PastCalls({ job }: { job: LiveJob }) {
  const current = useStore(session);
  if (current.kind !== "user" || !may(current.permissions, "tools:query")) return null;
  return <Calls job={job} userId={current.user.id} linksUsers={may(current.permissions, "admin:users")} />;
}

function Calls({ job, userId, linksUsers }: { job: LiveJob; userId: string; linksUsers: boolean }) {
  const calls = usePages(
    (cursor) => answerOf(api.GET("/api/calls", { params: { query: { job_id: job.id, limit: PAGE, cursor } } })),
    job.id,
  );
  // A cancellation is a call as well.
  const ended = hasEnded(job.status);
  const wasEnded = useRef(ended);
  useEffect(() => {
    if (ended !== wasEnded.current) void calls.reload();
    wasEnded.current = ended;
  }, [ended, calls.reload]);

  const callerOf = ({ user_id }: ToolCallInfo) => {
    if (user_id === userId) return "You";
    const name = (user_id === job.ownerId && job.ownerName) || user_id;
    return linksUsers ? <a href={href("person", { id: user_id })}>{name}</a> : name;
  };

  if (!calls.problem && (calls.items === null || calls.items.length === 0)) return null;
  return (
    <Card title="Calls about this job">
      <ProblemNotice problem={calls.problem} retry={() => void calls.reload()} />
      <ul class="calls">
        {calls.items?.map((call) => (
          <li key={call.id}>
            <details class="call">
              <summary>
                <span class="mono">{call.tool}</span>
                <OutcomeBadge outcome={call.outcome} />
                <span class="faint number">{formatDuration(call.duration_ms)}</span>
                <span class="faint">
                  <Age time={parseTime(call.started_at)} />
                </span>
              </summary>
              <div class="call-data">
                <dl class="facts">
                  <Fact name="By">{callerOf(call)}</Fact>
                  <Fact name="Workspace">{call.workspace}</Fact>
                  {call.error !== null && (
                    <Fact name="Error">
                      <span class="mono">{call.error}</span>
                    </Fact>
                  )}
                </dl>
                <h3>Arguments</h3>
                <Json value={call.arguments} label={`Arguments of ${call.tool}`} />
              </div>
            </details>
          </li>
        ))}
      </ul>
      <ProblemNotice problem={calls.more.problem} />
      {calls.hasMore && (
        <div class="buttons">
          <Button busy={calls.more.busy} onClick={calls.loadMore}>
            Show earlier calls
          </Button>
        </div>
      )}
    </Card>
  );
}
