import "./account.css";
import { useState } from "preact/hooks";
import { answerOf, api } from "../api/client";
import { useAction } from "../lib/hooks";
import { Page } from "../ui/parts";
import { useLinkToken } from "./link-token";
import { NewPassword } from "./new-password";
import { AccountMade, WithoutToken } from "./register-page";

export default function VerifyEmailPage() {
  const token = useLinkToken();
  const [email, setEmail] = useState<string | null>(null);
  const action = useAction();
  if (email !== null) return <AccountMade email={email} />;
  if (!token) return <WithoutToken what="register again" />;
  return (
    <Page title="Confirm your address" class="account-page">
      <p>Choose a password, and your account is made.</p>
      <div class="card">
        <NewPassword
          action={action}
          button="Make the account"
          onSubmit={async (password) => {
            const user = await answerOf(api.POST("/auth/verify-email", { body: { token, password } }));
            setEmail(user.email);
          }}
        />
      </div>
    </Page>
  );
}
