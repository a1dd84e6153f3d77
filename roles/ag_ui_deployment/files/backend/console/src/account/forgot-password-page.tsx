import "./account.css";
import { useState } from "preact/hooks";
import { answerOf, api } from "../api/client";
import { useAction } from "../lib/hooks";
import { href } from "../lib/router";
import { Button, Notice, Page, ProblemNotice, TextField } from "../ui/parts";

export default function ForgotPasswordPage() {
  const [email, setEmail] = useState("");
  const [sent, setSent] = useState(false);
  const action = useAction();
  return (
    <Page title="Forgot your password?" class="account-page">
      <ProblemNotice problem={action.problem} />
      {sent ? (
        <Notice kind="success">If there is an account with this address, a link to set a new password is on its way.</Notice>
      ) : (
        <form
          class="card form"
          onSubmit={(event) => {
            event.preventDefault();
            void action.run(async () => {
              await answerOf(api.POST("/auth/password/forgot", { body: { email: email.trim() } }));
              setSent(true);
            });
          }}
        >
          <TextField
            label="Email address"
            type="email"
            autocomplete="username"
            required
            maxLength={320}
            value={email}
            hint="A link to set a new password is sent there."
            onInput={setEmail}
            focus
          />
          <div class="buttons">
            <Button kind="primary" type="submit" busy={action.busy}>
              Send the link
            </Button>
          </div>
        </form>
      )}
      <p class="account-links">
        <a href={href("login")}>Back to the login</a>
      </p>
    </Page>
  );
}
