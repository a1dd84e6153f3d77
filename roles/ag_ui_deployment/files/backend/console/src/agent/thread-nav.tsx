import { useState } from "preact/hooks";
import type { ThreadSummary } from "../api/types";
import { parseTime } from "../lib/format";
import type { Pages } from "../lib/hooks";
import { href } from "../lib/router";
import { Age, Button, ProblemNotice } from "../ui/parts";

interface ThreadNavProps {
  threads: Pages<ThreadSummary>;
  /** The conversation that is shown. */
  thread: string;
  owner: string | null;
  userId: string;
}

export function ThreadNav({ threads, thread, owner, userId }: ThreadNavProps) {
  const items = threads.items ?? [];
  const [all, setAll] = useState(owner !== null);
  const shown = all ? items : items.filter((item) => item.owner_id === userId);
  const hasOthers = items.some((item) => item.owner_id !== userId);
  return (
    <nav class="threads" aria-label="Conversations">
      <a class="button" href={href("agent")}>
        New conversation
      </a>
      {hasOthers && (
        <label class="check">
          <input type="checkbox" checked={all} onChange={(event) => setAll(event.currentTarget.checked)} />
          Those of others too
        </label>
      )}
      <ProblemNotice problem={threads.problem} retry={() => void threads.reload()} />
      <ul>
        {shown.map((item) => (
          <li key={`${item.owner_id} ${item.id}`}>
            <ThreadLink item={item} isOwn={item.owner_id === userId} isShown={item.id === thread && item.owner_id === (owner ?? userId)} />
          </li>
        ))}
      </ul>
      {threads.items && shown.length === 0 && <p class="faint">No conversation yet.</p>}
      <ProblemNotice problem={threads.more.problem} />
      {threads.hasMore && (
        <Button busy={threads.more.busy} onClick={threads.loadMore}>
          Show earlier ones
        </Button>
      )}
    </nav>
  );
}

function ThreadLink({ item, isOwn, isShown }: { item: ThreadSummary; isOwn: boolean; isShown: boolean }) {
  const query = new URLSearchParams({ thread: item.id, ...(!isOwn && { owner: item.owner_id }) });
  return (
    <a class="thread" href={href("agent", {}, query.toString())} aria-current={isShown ? "page" : undefined}>
      <span class="thread-title">{item.title || "Without a title"}</span>
      <span class="faint">
        <Age time={parseTime(item.updated_at)} />
        {item.workspace !== "default" && ` · ${item.workspace}`}
        {!isOwn && " · of another user"}
      </span>
    </a>
  );
}
