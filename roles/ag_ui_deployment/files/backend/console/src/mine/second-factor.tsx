import { useState } from "preact/hooks";
import { answerOf, api } from "../api/client";
import { faultsByField } from "../api/problem";
import { type Action, useAction, useLoaded } from "../lib/hooks";
import { Button, Card, CopyButton, HiddenUsername, Notice, ProblemNotice, Spinner, TextField } from "../ui/parts";
import { QrCode } from "./qr-code";

type Task = "none" | "set-up" | "renew" | "disable";

interface Setup {
  readonly secret: string;
  readonly otpauth_uri: string;
}

export function SecondFactor({ email, onChanged }: { email: string; onChanged: () => void }) {
  const state = useLoaded(() => answerOf(api.GET("/auth/mfa")));
  const [task, setTask] = useState<Task>("none");
  const [codes, setCodes] = useState<readonly string[] | null>(null);
  const [removed, setRemoved] = useState(false);

  const finish = (issued: readonly string[] | null): void => {
    setCodes(issued);
    setRemoved(issued === null);
    setTask("none");
    void state.reload();
    onChanged();
  };
  const begin = (next: Task): void => {
    setCodes(null);
    setRemoved(false);
    setTask(next);
  };

  return (
    <Card title="Second factor">
      <ProblemNotice problem={state.problem} retry={() => void state.reload()} />
      {state.data === null && state.loading && <Spinner label="Loading" />}
      {removed && <Notice kind="success">The second factor is removed.</Notice>}
      {codes && <RecoveryCodes codes={codes} onStored={() => setCodes(null)} />}
      {state.data && task === "none" && !codes && (
        <>
          <p>
            {state.data.enabled
              ? `A code of your authenticator is required at each login. ${left(state.data.recovery_codes_left)}`
              : "With a second factor, a stolen password is not enough to log in. You need an authenticator app."}
          </p>
          <div class="buttons">
            {state.data.enabled ? (
              <>
                <Button onClick={() => begin("renew")}>New recovery codes</Button>
                <Button kind="danger" onClick={() => begin("disable")}>
                  Remove the second factor
                </Button>
              </>
            ) : (
              <Button kind="primary" onClick={() => begin("set-up")}>
                Set up a second factor
              </Button>
            )}
          </div>
        </>
      )}
      {task === "set-up" && <SetUp email={email} onDone={finish} onBack={() => setTask("none")} />}
      {task === "renew" && <Renew onDone={finish} onBack={() => setTask("none")} />}
      {task === "disable" && <Disable email={email} onDone={() => finish(null)} onBack={() => setTask("none")} />}
    </Card>
  );
}

function left(count: number): string {
  if (count === 0) return "You have no recovery codes left: get new ones.";
  return count === 1 ? "You have one recovery code left." : `You have ${count} recovery codes left.`;
}

/** The problem of a form, unless its fields show it. */
function useFaults(action: Action, names: readonly string[]): { fields: Record<string, string>; others: Action["problem"] } {
  const { fields } = action.problem ? faultsByField(action.problem, "body.", names) : { fields: {} };
  return { fields, others: Object.keys(fields).length > 0 ? null : action.problem };
}

function SetUp({ email, onDone, onBack }: { email: string; onDone: (codes: readonly string[]) => void; onBack: () => void }) {
  const [password, setPassword] = useState("");
  const [code, setCode] = useState("");
  const [setup, setSetup] = useState<Setup | null>(null);
  const action = useAction();
  const faults = useFaults(action, ["password", "code"]);
  if (setup === null) {
    return (
      <form
        class="form"
        onSubmit={(event) => {
          event.preventDefault();
          void action.run(async () => setSetup(await answerOf(api.POST("/auth/mfa/setup", { body: { password } }))));
        }}
      >
        <ProblemNotice problem={faults.others} />
        <HiddenUsername email={email} />
        <TextField label="Your password" type="password" autocomplete="current-password" required value={password} error={faults.fields["password"]} onInput={setPassword} focus />
        <FormButtons busy={action.busy} action="Go on" onBack={onBack} />
      </form>
    );
  }
  return (
    <form
      class="form"
      onSubmit={(event) => {
        event.preventDefault();
        void action.run(async () => {
          const body = { code: code.replace(/\s/g, "") };
          onDone((await answerOf(api.POST("/auth/mfa/confirm", { body }))).recovery_codes);
        });
      }}
    >
      <ProblemNotice problem={faults.others} />
      <p>Scan this code with your authenticator, or type the secret. Then enter the code that it shows.</p>
      <div class="factor-secret">
        <QrCode text={setup.otpauth_uri} label="QR code of the secret for an authenticator" />
        <div class="field">
          <span>Secret</span>
          <code class="mono">{setup.secret.replace(/(.{4})(?=.)/g, "$1 ")}</code>
          <div>
            <CopyButton text={setup.secret} label="Copy the secret" />
          </div>
        </div>
      </div>
      <TextField label="Code" autocomplete="one-time-code" inputMode="numeric" required maxLength={64} value={code} error={faults.fields["code"]} onInput={setCode} focus />
      <FormButtons busy={action.busy} action="Turn it on" onBack={onBack} />
    </form>
  );
}

function Renew({ onDone, onBack }: { onDone: (codes: readonly string[]) => void; onBack: () => void }) {
  const [code, setCode] = useState("");
  const action = useAction();
  const faults = useFaults(action, ["code"]);
  return (
    <form
      class="form"
      onSubmit={(event) => {
        event.preventDefault();
        void action.run(async () => {
          const body = { code: code.replace(/\s/g, "") };
          onDone((await answerOf(api.POST("/auth/mfa/recovery-codes", { body }))).recovery_codes);
        });
      }}
    >
      <ProblemNotice problem={faults.others} />
      <p>The earlier recovery codes will no longer be valid.</p>
      <TextField label="Code of your authenticator" autocomplete="one-time-code" inputMode="numeric" required maxLength={64} value={code} error={faults.fields["code"]} onInput={setCode} focus />
      <FormButtons busy={action.busy} action="Get new codes" onBack={onBack} />
    </form>
  );
}

function Disable({ email, onDone, onBack }: { email: string; onDone: () => void; onBack: () => void }) {
  const [password, setPassword] = useState("");
  const [code, setCode] = useState("");
  const [recovers, setRecovers] = useState(false);
  const action = useAction();
  const faults = useFaults(action, ["password", "code", "recovery_code"]);
  return (
    <form
      class="form"
      onSubmit={(event) => {
        event.preventDefault();
        void action.run(async () => {
          const proof = recovers ? { recovery_code: code.trim() } : { code: code.replace(/\s/g, "") };
          await answerOf(api.POST("/auth/mfa/disable", { body: { password, ...proof } }));
          onDone();
        });
      }}
    >
      <ProblemNotice problem={faults.others} />
      <HiddenUsername email={email} />
      <TextField label="Your password" type="password" autocomplete="current-password" required value={password} error={faults.fields["password"]} onInput={setPassword} focus />
      <TextField
        label={recovers ? "Recovery code" : "Code of your authenticator"}
        autocomplete={recovers ? "off" : "one-time-code"}
        required
        maxLength={64}
        value={code}
        error={faults.fields["code"] ?? faults.fields["recovery_code"]}
        onInput={setCode}
      />
      <label class="check">
        <input type="checkbox" checked={recovers} onChange={(event) => setRecovers(event.currentTarget.checked)} />
        Use a recovery code: I have lost the authenticator
      </label>
      <FormButtons busy={action.busy} action="Remove the second factor" danger onBack={onBack} />
    </form>
  );
}

function FormButtons(props: { busy: boolean; action: string; danger?: boolean; onBack: () => void }) {
  return (
    <div class="buttons">
      <Button kind={props.danger ? "danger" : "primary"} type="submit" busy={props.busy}>
        {props.action}
      </Button>
      <Button onClick={props.onBack}>Back</Button>
    </div>
  );
}

function RecoveryCodes({ codes, onStored }: { codes: readonly string[]; onStored: () => void }) {
  return (
    <Notice kind="success">
      <p>
        <strong>Your recovery codes are shown only now.</strong> Store them where you find them without your authenticator.
        Each can be used once in place of a code.
      </p>
      <ul class="recovery-codes">
        {codes.map((code) => (
          <li key={code} class="mono">
            {code}
          </li>
        ))}
      </ul>
      <div class="buttons">
        <CopyButton text={codes.join("\n")} label="Copy the codes" />
        <Button onClick={onStored}>I have stored them</Button>
      </div>
    </Notice>
  );
}
