import "./account.css";
import { useState } from "preact/hooks";
import { answerOf, api } from "../api/client";
import { faultsByField } from "../api/problem";
import { useAction } from "../lib/hooks";
import { href } from "../lib/router";
import { Button, Notice, Page, ProblemNotice, TextField } from "../ui/parts";
import { useLinkToken } from "./link-token";
import { NewPassword } from "./new-password";

export default function RegisterPage() {
  const invitation = useLinkToken();
  return invitation ? <AcceptInvitation invitation={invitation} /> : <Register />;
}

function AcceptInvitation({ invitation }: { invitation: string }) {
  const [email, setEmail] = useState<string | null>(null);
  const action = useAction();
  if (email !== null) return <AccountMade email={email} />;
  return (
    <Page title="Accept the invitation" class="account-page">
      <p>Choose a password, and your account is made.</p>
      <div class="card">
        <NewPassword
          action={action}
          button="Make the account"
          named
          onSubmit={async (password, name) => {
            const body = { invitation, password, ...(name && { name }) };
            const user = await answerOf(api.POST("/auth/register", { body }));
            setEmail("email" in user ? user.email : "");
          }}
        />
      </div>
    </Page>
  );
}

function Register() {
  const [email, setEmail] = useState("");
  const [name, setName] = useState("");
  const [sent, setSent] = useState(false);
  const action = useAction();
  const faults = action.problem ? faultsByField(action.problem, "body.", ["email", "name"]).fields : {};
  if (sent) {
    return (
      <Page title="Look into your mail" class="account-page">
        <Notice kind="success">
          A link is on its way to {email}. Follow it to choose a password and to finish the registration.
        </Notice>
      </Page>
    );
  }
  return (
    <Page title="Register" class="account-page">
      {Object.keys(faults).length === 0 && <ProblemNotice problem={action.problem} />}
      <form
        class="card form"
        onSubmit={(event) => {
          event.preventDefault();
          void action.run(async () => {
            const body = { email: email.trim(), ...(name.trim() && { name: name.trim() }) };
            await answerOf(api.POST("/auth/register", { body }));
            setSent(true);
          });
        }}
      >
        <TextField label="Email address" type="email" autocomplete="email" required maxLength={320} value={email} error={faults["email"]} onInput={setEmail} focus />
        <TextField label="Your name (optional)" autocomplete="name" maxLength={200} value={name} error={faults["name"]} onInput={setName} />
        <div class="buttons">
          <Button kind="primary" type="submit" busy={action.busy}>
            Register
          </Button>
        </div>
      </form>
      <p class="account-links">
        <a href={href("login")}>Log in instead</a>
      </p>
    </Page>
  );
}

export function AccountMade({ email }: { email: string }) {
  return (
    <Page title="Your account is made" class="account-page">
      <Notice kind="success">You can log in now{email && ` as ${email}`}.</Notice>
      <p>
        <a class="button button-primary" href={href("login")}>
          Log in
        </a>
      </p>
    </Page>
  );
}

export function WithoutToken({ what }: { what: string }) {
  return (
    <Page title="This link is not complete" class="account-page">
      <Notice kind="warning">Open the whole link from the mail, or {what}.</Notice>
      <p class="account-links">
        <a href={href("login")}>Log in</a>
        <a href={href("forgotPassword")}>Request a new link</a>
      </p>
    </Page>
  );
}
