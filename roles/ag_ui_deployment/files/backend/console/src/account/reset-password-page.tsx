import "./account.css";
import { useState } from "preact/hooks";
import { answerOf, api } from "../api/client";
import { useAction } from "../lib/hooks";
import { href } from "../lib/router";
import { session } from "../session";
import { Notice, Page } from "../ui/parts";
import { useLinkToken } from "./link-token";
import { NewPassword } from "./new-password";
import { WithoutToken } from "./register-page";

export default function ResetPasswordPage() {
  const token = useLinkToken();
  const [done, setDone] = useState(false);
  const action = useAction();
  if (done) {
    return (
      <Page title="The password is set" class="account-page">
        <Notice kind="success">Log in with the new password. All earlier sessions have ended.</Notice>
        <p>
          <a class="button button-primary" href={href("login")}>
            Log in
          </a>
        </p>
      </Page>
    );
  }
  if (!token) return <WithoutToken what="request a new one" />;
  return (
    <Page title="Set a new password" class="account-page">
      <div class="card">
        <NewPassword
          action={action}
          button="Set the password"
          onSubmit={async (password) => {
            await answerOf(api.POST("/auth/password/reset", { body: { token, password } }));
            session.set({ kind: "none", expired: false });
            setDone(true);
          }}
        />
      </div>
    </Page>
  );
}
