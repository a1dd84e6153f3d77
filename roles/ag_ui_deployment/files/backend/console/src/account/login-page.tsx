import "./account.css";
import { useState } from "preact/hooks";
import { answerOf, api } from "../api/client";
import { ApiError } from "../api/problem";
import { useAction, useStore } from "../lib/hooks";
import { href } from "../lib/router";
import { loadSession, session } from "../session";
import { Logo } from "../ui/icons";
import { Button, Notice, Page, ProblemNotice, TextField } from "../ui/parts";

type Step = "password" | "otp" | "recovery";

const FACTOR_PROBLEMS = new Set(["second-factor-required", "second-factor-rejected"]);

export default function LoginPage() {
  const current = useStore(session);
  const [email, setEmail] = useState("");
  const [password, setPassword] = useState("");
  const [code, setCode] = useState("");
  const [step, setStep] = useState<Step>("password");
  const action = useAction();

  const submit = async (): Promise<void> => {
    const factor = step === "otp" ? { otp: code.replace(/\s/g, "") } : step === "recovery" ? { recovery_code: code.trim() } : {};
    try {
      await answerOf(api.POST("/auth/login", { body: { email, password, cookies: true, ...factor } }));
    } catch (error) {
      if (error instanceof ApiError && FACTOR_PROBLEMS.has(error.slug)) {
        setCode("");
        if (step === "password") {
          setStep("otp");
          return;
        }
      }
      throw error;
    }
    await loadSession();
  };

  const rejected = action.problem?.slug === "second-factor-rejected";
  const back = (): void => {
    action.clear();
    setCode("");
    setStep("password");
  };

  return (
    <Page title="Log in" class="account-page">
      <div class="account-logo">
        <Logo />
      </div>
      {current.kind === "none" && current.expired && step === "password" && !action.problem && (
        <Notice kind="info">Your session has ended. Log in again to go on.</Notice>
      )}
      {!rejected && <ProblemNotice problem={action.problem} />}
      <form
        class="card form"
        onSubmit={(event) => {
          event.preventDefault();
          void action.run(submit);
        }}
      >
        {step === "password" ? (
          <>
            <TextField label="Email address" type="email" autocomplete="username" required value={email} onInput={setEmail} focus />
            <TextField label="Password" type="password" autocomplete="current-password" required value={password} onInput={setPassword} />
          </>
        ) : (
          <>
            <p>
              The password of <strong>{email}</strong> is right. The account has a second factor.
            </p>
            <TextField
              key={step}
              label={step === "otp" ? "Code of your authenticator" : "Recovery code"}
              hint={step === "otp" ? "Six digits; each code can be used once." : "One of the codes that you stored when you set up the second factor."}
              autocomplete={step === "otp" ? "one-time-code" : "off"}
              inputMode={step === "otp" ? "numeric" : "text"}
              required
              maxLength={64}
              value={code}
              error={rejected ? "This code is wrong or was used before. Wait for the next one." : undefined}
              onInput={setCode}
              focus
            />
          </>
        )}
        <div class="buttons">
          {step !== "password" && <Button onClick={back}>Back</Button>}
          <Button kind="primary" type="submit" busy={action.busy}>
            {action.busy ? "Logging in…" : "Log in"}
          </Button>
        </div>
        {step === "otp" && (
          <Button
            kind="quiet"
            onClick={() => {
              action.clear();
              setStep("recovery");
            }}
          >
            Use a recovery code
          </Button>
        )}
        {step === "recovery" && (
          <Button
            kind="quiet"
            onClick={() => {
              action.clear();
              setStep("otp");
            }}
          >
            Use the authenticator
          </Button>
        )}
      </form>
      <p class="account-links">
        <a href={href("forgotPassword")}>Forgot your password?</a>
        <a href={href("register")}>Register</a>
      </p>
    </Page>
  );
}
