import "./mine.css";
import { useState } from "preact/hooks";
import { answerOf, api } from "../api/client";
import { faultsByField } from "../api/problem";
import { asWords } from "../lib/format";
import { useAction, useLoaded, useStore } from "../lib/hooks";
import { logOut, session } from "../session";
import { NewPassword } from "../account/new-password";
import { Card, HiddenUsername, Notice, Page, TextField } from "../ui/parts";
import { SessionsCard } from "../ui/sessions-card";
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
  return (
    <SessionsCard
      sessions={sessions}
      allTitle="Log out everywhere"
      allText="All sessions end, this one too."
      onEnd={(id) => answerOf(api.DELETE("/auth/sessions/{session_id}", { params: { path: { session_id: id } } }))}
      onEndAll={() => logOut(true)}
    />
  );
}
