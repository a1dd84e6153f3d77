/** Parts that the pages of accounts share. */

import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import { type Account, type Role, ROLES } from "../api/types";
import { asWords, parseTime } from "../lib/format";
import { useNow } from "../lib/hooks";
import { Button, Card, CopyButton, DateTime, SelectField, TextField } from "../ui/parts";
import { type AccountState, stateOf } from "./filters";

const STATES: Record<AccountState, { label: string; badge: string }> = {
  active: { label: "Active", badge: "completed" },
  locked: { label: "Locked", badge: "cancelled" },
  inactive: { label: "Deactivated", badge: "queued" },
};

export function AccountBadge({ account }: { account: Account }) {
  const now = useNow(account.locked_until !== null);
  const { label, badge } = STATES[stateOf(account, now)];
  return <span class={`badge badge-${badge}`}>{label}</span>;
}

export const ROLE_OPTIONS: readonly { value: Role; label: string }[] = ROLES.map((role) => ({ value: role, label: asWords(role) }));

export function RoleField({ label, value, onChange }: { label: string; value: Role; onChange: (role: Role) => void }) {
  return <SelectField label={label} value={value} options={ROLE_OPTIONS} onChange={(role) => onChange(role as Role)} />;
}

interface RoleChangeProps {
  /** Whose role it is: there is no visible label, because the row of the table says it. */
  label: string;
  value: Role;
  busy: boolean;
  onChange: (role: Role) => void;
}

/** The role of a member. A choice counts once it is confirmed: arrow keys go through the options. */
export function RoleChange({ label, value, busy, onChange }: RoleChangeProps) {
  const [role, setRole] = useState(value);
  useEffect(() => setRole(value), [value]);
  return (
    <div class="people-inline">
      <select aria-label={label} value={role} onChange={(event) => setRole(event.currentTarget.value as Role)}>
        {ROLE_OPTIONS.map((option) => (
          <option key={option.value} value={option.value} selected={option.value === role}>
            {option.label}
          </option>
        ))}
      </select>
      {role !== value && (
        <Button busy={busy} label={`${label}: change to ${role}`} onClick={() => onChange(role)}>
          Change
        </Button>
      )}
    </div>
  );
}

interface PersonDraft {
  readonly email: string;
  readonly name: string;
  readonly role: Role;
}

export const NOBODY: PersonDraft = { email: "", name: "", role: "viewer" };

interface PersonFieldsProps {
  draft: PersonDraft;
  faults: Readonly<Record<string, string>>;
  onChange: (draft: PersonDraft) => void;
}

export function PersonFields({ draft, faults, onChange }: PersonFieldsProps) {
  return (
    <>
      <TextField
        label="Email address"
        type="email"
        required
        maxLength={320}
        value={draft.email}
        error={faults["email"]}
        onInput={(email) => onChange({ ...draft, email })}
      />
      <TextField label="Name (optional)" maxLength={200} value={draft.name} error={faults["name"]} onInput={(name) => onChange({ ...draft, name })} />
      <RoleField label="Role" value={draft.role} onChange={(role) => onChange({ ...draft, role })} />
    </>
  );
}

/** A form that is shown when the reader opens it. */
export function FormCard({ title, children }: { title: string; children: ComponentChildren }) {
  return (
    <Card>
      <details class="form-card">
        <summary>
          <h2>{title}</h2>
        </summary>
        {children}
      </details>
    </Card>
  );
}

/** A link that is shown once, to be passed on. */
export function OnceLink({ title, link, expires, onClose }: { title: string; link: string; expires: string; onClose: () => void }) {
  return (
    <div class="notice notice-success" role="status">
      <div class="notice-text">
        <p>
          <strong>{title}</strong> This link is shown only now. Whoever has it can use it, once, until{" "}
          <DateTime time={parseTime(expires)} />.
        </p>
        <code class="mono">{link}</code>
        <div class="buttons">
          <CopyButton text={link} label="Copy the link" />
          <Button onClick={onClose}>I have passed it on</Button>
        </div>
      </div>
    </div>
  );
}
