import "./mine.css";
import { useState } from "preact/hooks";
import { answerOf, api } from "../api/client";
import { faultsByField } from "../api/problem";
import type { SessionInfo } from "../api/types";
import { asWords, parseTime } from "../lib/format";
import { useAction, useLoaded, useStore } from "../lib/hooks";
import { logOut, session } from "../session";
import { NewPassword } from "../account/new-password";
import { Age, Button, Card, Confirm, HiddenUsername, Notice, Page, ProblemNotice, Spinner, TextField } from "../ui/parts";
import { SecondFactor } from "./second-factor";

export default function MinePage() {
  const current = useStore(session);
  // Changes of the password and of the second factor end the other sessions.
  const [changes, setChanges] = useState(0);
  if (current.kind !== "user") return null;
  const { user, permissions } = current;
  const changed = (): void => setChanges((count) => count + 1);
  return (
    <Page title="Mine" class="mine-page">
      <Card title="Account">
        <dl class="facts">
          <div>
            <dt>Email address</dt>
            <dd>{user.email}</dd>
          </div>
          <div>
            <dt>Role</dt>
            <dd>{asWords(user.role)}</dd>
          </div>
          <div>
            <dt>Workspaces</dt>
            <dd>
              {permissions.everywhere
                ? "All of them"
                : permissions.workspaces.map(({ workspace, role }) => `${workspace} (${role})`).join(", ")}
            </dd>
          </div>
        </dl>
      </Card>
      <Password email={user.email} onChanged={changed} />
      <SecondFactor email={user.email} onChanged={changed} />
      <Sessions key={changes} />
    </Page>
  );
}

function Password({ email, onChanged }: { email: string; onChanged: () => void }) {
  const [currentPassword, setCurrentPassword] = useState("");
  const [round, setRound] = useState(0);
  const [done, setDone] = useState(false);
  const action = useAction();
  const faults = action.problem ? faultsByField(action.problem, "body.", ["current_password"]).fields : {};
  return (
    <Card title="Password">
      {done && <Notice kind="success">The password is changed. Your other sessions have ended.</Notice>}
      <NewPassword
        key={round}
        action={action}
        field="new_password"
        otherFields={["current_password"]}
        button="Change the password"
        onSubmit={async (password) => {
          setDone(false);
          const body = { current_password: currentPassword, new_password: password };
          await answerOf(api.POST("/auth/password/change", { body }));
          setCurrentPassword("");
          setRound(round + 1);
          setDone(true);
          onChanged();
        }}
      >
        <HiddenUsername email={email} />
        <TextField
          label="Current password"
          type="password"
          autocomplete="current-password"
          required
          value={currentPassword}
          error={faults["current_password"]}
          onInput={setCurrentPassword}
        />
      </NewPassword>
    </Card>
  );
}

function Sessions() {
  const sessions = useLoaded(async () => (await answerOf(api.GET("/auth/sessions"))).items);
  const action = useAction();
  const [ending, setEnding] = useState<SessionInfo | "all" | null>(null);
  const end = async (): Promise<void> => {
    if (ending === "all") {
      await logOut(true);
    } else if (ending) {
      await answerOf(api.DELETE("/auth/sessions/{session_id}", { params: { path: { session_id: ending.id } } }));
      await sessions.reload();
    }
  };
  return (
    <Card title="Sessions" actions={<Button onClick={() => setEnding("all")}>Log out everywhere</Button>}>
      <ProblemNotice problem={sessions.problem} retry={() => void sessions.reload()} />
      <ProblemNotice problem={action.problem} />
      {sessions.data === null && sessions.loading && <Spinner label="Loading" />}
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
              <Button label={`End the session of ${entry.address ?? "unknown address"}`} onClick={() => setEnding(entry)}>
                End
              </Button>
            )}
          </li>
        ))}
      </ul>
      {ending && (
        <Confirm
          title={ending === "all" ? "Log out everywhere?" : "End this session?"}
          action={ending === "all" ? "Log out everywhere" : "End the session"}
          onCancel={() => setEnding(null)}
          onConfirm={() => {
            setEnding(null);
            void action.run(end);
          }}
        >
          <p>
            {ending === "all"
              ? "All sessions end, this one too."
              : `${programOf(ending.user_agent)} at ${ending.address ?? "an unknown address"} is logged out.`}
          </p>
        </Confirm>
      )}
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
