import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { faultsByField } from "../api/problem";
import type { Action } from "../lib/hooks";
import { Button, ProblemNotice, TextField } from "../ui/parts";

interface Props {
  action: Action;
  /** The name of the password in the request. */
  field?: string;
  button: string;
  /** Also asks for a name. */
  named?: boolean;
  /** Further fields, above those of the password, and their names. */
  children?: ComponentChildren;
  otherFields?: readonly string[];
  onSubmit: (password: string, name: string) => Promise<void>;
}

/** Asks for a new password twice, and shows why the server refuses it. */
export function NewPassword({ action, field = "password", button, named = false, children, otherFields = [], onSubmit }: Props) {
  const [name, setName] = useState("");
  const [password, setPassword] = useState("");
  const [repeated, setRepeated] = useState("");
  const [differs, setDiffers] = useState(false);
  const faults = action.problem ? faultsByField(action.problem, "body.", [field, "name", ...otherFields]).fields : {};
  const hasFaults = Object.keys(faults).length > 0;
  return (
    <form
      class="form"
      onSubmit={(event) => {
        event.preventDefault();
        setDiffers(password !== repeated);
        if (password === repeated) void action.run(() => onSubmit(password, name.trim()));
      }}
    >
      {!hasFaults && <ProblemNotice problem={action.problem} />}
      {children}
      {named && (
        <TextField label="Your name (optional)" autocomplete="name" maxLength={200} value={name} error={faults["name"]} onInput={setName} />
      )}
      <TextField
        label="New password"
        type="password"
        autocomplete="new-password"
        required
        value={password}
        hint="Long and hard to guess: some words that do not belong together, for example."
        error={faults[field]}
        onInput={setPassword}
      />
      <TextField
        label="New password, again"
        type="password"
        autocomplete="new-password"
        required
        value={repeated}
        error={differs ? "This is not the same password." : undefined}
        onInput={setRepeated}
      />
      <div class="buttons">
        <Button kind="primary" type="submit" busy={action.busy}>
          {button}
        </Button>
      </div>
    </form>
  );
}
