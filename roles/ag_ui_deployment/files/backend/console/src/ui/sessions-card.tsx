import "./sessions-card.css";
import type { SessionInfo } from "../api/types";
import { parseTime } from "../lib/format";
import type { Loaded } from "../lib/hooks";
import { Age, Button, Card, ProblemNotice, Spinner } from "./parts";
import { TasksReport, useTasks } from "./tasks";

interface Props {
  sessions: Loaded<readonly SessionInfo[]>;
  /** The button that ends all sessions, and what it does. */
  allTitle: string;
  allText: string;
  onEnd: (id: string) => Promise<unknown>;
  onEndAll: () => Promise<unknown>;
}

/** The sessions of an account, and the buttons that end them. */
export function SessionsCard({ sessions, allTitle, allText, onEnd, onEndAll }: Props) {
  const tasks = useTasks();
  const askAll = (): void =>
    tasks.ask({
      title: `${allTitle}?`,
      action: allTitle,
      text: <p>{allText}</p>,
      done: "All sessions have ended.",
      run: onEndAll,
    });
  const ask = (entry: SessionInfo): void =>
    tasks.ask({
      title: "End this session?",
      action: "End the session",
      text: (
        <p>
          {programOf(entry.user_agent)} at {entry.address ?? "an unknown address"} is logged out.
        </p>
      ),
      done: "The session has ended.",
      run: async () => {
        await onEnd(entry.id);
        await sessions.reload();
      },
    });
  return (
    <Card title="Sessions" actions={<Button onClick={askAll}>{allTitle}</Button>}>
      <ProblemNotice problem={sessions.problem} retry={() => void sessions.reload()} />
      <TasksReport tasks={tasks} />
      {sessions.data === null && sessions.loading && <Spinner label="Loading" />}
      {sessions.data?.length === 0 && <p class="faint">There are no sessions.</p>}
      <ul class="sessions">
        {sessions.data?.map((entry) => (
          <li key={entry.id}>
            <div class="session-text">
              <span>
                {programOf(entry.user_agent)}
                {entry.current && <span class="badge badge-running">This one</span>}
              </span>
              <span class="faint">
                {entry.address ?? "unknown address"} · since <Age time={parseTime(entry.created_at)} /> · last used{" "}
                <Age time={parseTime(entry.last_used_at)} />
              </span>
              {entry.user_agent && <span class="faint session-agent">{entry.user_agent}</span>}
            </div>
            {!entry.current && (
              <Button label={`End the session of ${entry.address ?? "unknown address"}`} busy={tasks.busy} onClick={() => ask(entry)}>
                End
              </Button>
            )}
          </li>
        ))}
      </ul>
    </Card>
  );
}

const BROWSERS: readonly (readonly [RegExp, string])[] = [
  [/Edg\//, "Edge"],
  [/Firefox\//, "Firefox"],
  [/Chrom(e|ium)\//, "Chrome"],
  [/Safari\//, "Safari"],
  [/curl\//, "curl"],
  [/python/i, "Python"],
  [/node/i, "Node.js"],
];
const SYSTEMS: readonly (readonly [RegExp, string])[] = [
  [/Windows/, "Windows"],
  [/Android/, "Android"],
  [/iPhone|iPad/, "iOS"],
  [/Mac OS/, "macOS"],
  [/Linux/, "Linux"],
];

function programOf(agent: string | null): string {
  const find = (names: typeof BROWSERS): string | undefined => names.find(([pattern]) => pattern.test(agent ?? ""))?.[1];
  const browser = find(BROWSERS) ?? "A program";
  const system = find(SYSTEMS);
  return system ? `${browser} on ${system}` : browser;
}
