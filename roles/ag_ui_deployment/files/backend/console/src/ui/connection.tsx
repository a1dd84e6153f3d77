import { formatClock, formatDuration } from "../lib/format";
import { useNow, useStore } from "../lib/hooks";
import type { Feed, FeedState } from "../live/feed";

/** For how long a resumed connection is mentioned. */
const RESUMED_MS = 15_000;

/** Whether the stream is connected. Screen readers hear the changes, not the seconds. */
export function Connection({ feed }: { feed: Feed }) {
  const state = useStore(feed.state);
  const now = useNow(state.kind === "reconnecting" || (state.kind === "connected" && state.resumed !== null));
  const { tone, text, detail } = describe(state, now);
  return (
    <div class={`connection connection-${tone}`}>
      <span class="connection-dot" aria-hidden="true" />
      <span role="status">{text}</span>
      {detail && <span class="faint">{detail}</span>}
    </div>
  );
}

function describe(state: FeedState, now: number): { tone: string; text: string; detail: string } {
  switch (state.kind) {
    case "connected": {
      const { resumed } = state;
      if (resumed === null || now - resumed.at > RESUMED_MS) return { tone: "on", text: "Connected", detail: "" };
      return {
        tone: "on",
        text: "Connection resumed",
        detail: `was lost for ${formatDuration(resumed.at - resumed.lostAt)}; the events of that time are here`,
      };
    }
    case "reconnecting":
      return {
        tone: "lost",
        text: `Reconnecting since ${formatClock(state.since)}`,
        detail: `for ${formatDuration(now - state.since)}`,
      };
    case "connecting":
      return { tone: "wait", text: "Connecting", detail: "" };
    default:
      return { tone: "off", text: "Not connected", detail: "" };
  }
}
