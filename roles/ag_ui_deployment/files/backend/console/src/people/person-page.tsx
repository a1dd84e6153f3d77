import "./people.css";
import { useState } from "preact/hooks";
import { answerOf, api } from "../api/client";
import { faultsByField } from "../api/problem";
import type { Account, Role } from "../api/types";
import { asWords, parseTime } from "../lib/format";
import { useLoaded, useStore } from "../lib/hooks";
import { formatQuery } from "../lib/query";
import { href } from "../lib/router";
import { loadSession, may, session } from "../session";
import { Button, Card, DateTime, Fact, Page, ProblemNotice, SelectField, Spinner, Table, TextField } from "../ui/parts";
import { SessionsCard } from "../ui/sessions-card";
import { TasksReport, useTasks } from "../ui/tasks";
import { stateOf } from "./filters";
import { AccountBadge, OnceLink, RoleField, RoleChange } from "./parts";
import { loadWorkspaceNames, removeMember, setMember } from "./workspaces";

interface CardProps {
  account: Account;
  /** Whether it is the account of the reader. */
  isOwn: boolean;
  /** Reads the account again; that of the reader as well. */
  onChanged: () => Promise<void>;
}

export default function PersonPage({ params }: { params: Readonly<Record<string, string>> }) {
  const id = params["id"]!;
  const path = { user_id: id };
  const current = useStore(session);
  const account = useLoaded(() => answerOf(api.GET("/admin/users/{user_id}", { params: { path } })));
  const sessions = useLoaded(async () => (await answerOf(api.GET("/admin/users/{user_id}/sessions", { params: { path } }))).items);
  if (current.kind !== "user") return null;
  const { permissions, user } = current;
  const isOwn = user.id === id;
  const changed = async (): Promise<void> => {
    await Promise.all([account.reload(), sessions.reload(), isOwn && loadSession()]);
  };
  const props = account.data && { account: account.data, isOwn, onChanged: changed };
  return (
    <Page title={account.data?.email ?? "User"}>
      <p>
        <a href={href("people")}>All users</a>
      </p>
      <ProblemNotice problem={account.problem} retry={() => void account.reload()} />
      {!props && account.loading && <Spinner label="Loading the user" />}
      {props && (
        <>
          <Overview account={props.account} auditable={may(permissions, "admin:audit")} />
          <Identity {...props} />
          <Access {...props} />
          {may(permissions, "admin:workspaces") && <Memberships {...props} />}
          <SessionsCard
            sessions={sessions}
            allTitle="Log out everywhere"
            allText={`All sessions of ${props.account.email} end.`}
            onEnd={(session_id) =>
              answerOf(api.DELETE("/admin/users/{user_id}/sessions/{session_id}", { params: { path: { ...path, session_id } } }))
            }
            onEndAll={async () => {
              await answerOf(api.DELETE("/admin/users/{user_id}/sessions", { params: { path } }));
              await sessions.reload();
            }}
          />
        </>
      )}
    </Page>
  );
}

function Overview({ account, auditable }: { account: Account; auditable: boolean }) {
  return (
    <Card>
      <div>
        <AccountBadge account={account} />
      </div>
      <dl class="facts">
        <Fact name="Name">{account.name ?? "–"}</Fact>
        <Fact name="Role">{asWords(account.role)}</Fact>
        <Fact name="Second factor">{account.second_factor ? "Yes" : "No"}</Fact>
        <Fact name="Created">
          <DateTime time={parseTime(account.created_at)} />
        </Fact>
        <Fact name="Id">
          <span class="mono">{account.id}</span>
        </Fact>
      </dl>
      {auditable && (
        <p>
          Audit log: <a href={href("audit", {}, formatQuery({ actor: account.id }))}>what this user did</a>,{" "}
          <a href={href("audit", {}, formatQuery({ target: `user:${account.id}` }))}>what was done to this account</a>
        </p>
      )}
    </Card>
  );
}

/** The name and the role. */
function Identity({ account, isOwn, onChanged }: CardProps) {
  const path = { user_id: account.id };
  const [name, setName] = useState(account.name ?? "");
  const [role, setRole] = useState<Role>(account.role);
  const tasks = useTasks();
  const faults = tasks.problem ? faultsByField(tasks.problem, "body.", ["name"]).fields : {};
  const rename = (): Promise<boolean> =>
    tasks.run({
      done: "The name is changed.",
      run: async () => {
        await answerOf(api.PUT("/admin/users/{user_id}/name", { params: { path }, body: { name: name.trim() || null } }));
        await onChanged();
      },
    });
  const changeRole = (): void =>
    tasks.ask({
      title: `Make ${account.email} ${role}?`,
      action: "Change the role",
      text: (
        <p>
          {account.role} becomes {role}, at once.{" "}
          {isOwn && "This is your own account: without the role admin you cannot take this back."}
        </p>
      ),
      done: `${account.email} is now ${role}.`,
      run: async () => {
        await answerOf(api.PUT("/admin/users/{user_id}/role", { params: { path }, body: { role } }));
        await onChanged();
      },
    });
  return (
    <Card title="Name and role">
      <TasksReport tasks={faults["name"] ? { ...tasks, problem: null } : tasks} />
      <form
        class="people-inline"
        onSubmit={(event) => {
          event.preventDefault();
          void rename();
        }}
      >
        <TextField label="Name" maxLength={200} value={name} error={faults["name"]} onInput={setName} />
        <Button type="submit" busy={tasks.busy}>
          Rename
        </Button>
      </form>
      <form
        class="people-inline"
        onSubmit={(event) => {
          event.preventDefault();
          changeRole();
        }}
      >
        <RoleField label="Role" value={role} onChange={setRole} />
        <Button type="submit" busy={tasks.busy} disabled={role === account.role}>
          Change the role
        </Button>
      </form>
    </Card>
  );
}

/** Whether and how the user can log in. */
function Access({ account, isOwn, onChanged }: CardProps) {
  const params = { path: { user_id: account.id } };
  const { email } = account;
  const tasks = useTasks();
  const [link, setLink] = useState<{ link: string; expires_at: string } | null>(null);
  const change = (call: () => Promise<unknown>) => async (): Promise<void> => {
    await call();
    await onChanged();
  };
  const deactivate = (): void =>
    tasks.ask({
      title: "Deactivate this account?",
      action: "Deactivate it",
      text: (
        <p>
          {email} is logged out everywhere and cannot log in until the account is activated again.
          {isOwn && " This is your own account."}
        </p>
      ),
      done: `${email} is deactivated.`,
      run: change(() => answerOf(api.POST("/admin/users/{user_id}/deactivate", { params }))),
    });
  const activate = (): Promise<boolean> =>
    tasks.run({
      done: `${email} can log in again.`,
      run: change(() => answerOf(api.POST("/admin/users/{user_id}/activate", { params }))),
    });
  const unlock = (): Promise<boolean> =>
    tasks.run({
      done: `${email} is unlocked.`,
      run: change(() => answerOf(api.POST("/admin/users/{user_id}/unlock", { params }))),
    });
  const removeFactor = (): void =>
    tasks.ask({
      title: "Remove the second factor?",
      action: "Remove it",
      text: <p>{email} is logged out everywhere, and the password alone is then enough to log in.</p>,
      done: `The second factor of ${email} is removed.`,
      run: change(() => answerOf(api.DELETE("/admin/users/{user_id}/second-factor", { params }))),
    });
  const makeLink = (): void =>
    tasks.ask({
      title: "Create a link to set a new password?",
      action: "Create the link",
      text: <p>Whoever has the link can set the password of {email}, once. Sessions end only then.</p>,
      done: "The link is created.",
      run: async () => setLink(await answerOf(api.POST("/admin/users/{user_id}/reset-link", { params }))),
    });
  const isLocked = stateOf(account, Date.now()) === "locked";
  return (
    <Card title="Access">
      <TasksReport tasks={tasks} />
      {link && <OnceLink title={`Pass this link on to ${email}.`} link={link.link} expires={link.expires_at} onClose={() => setLink(null)} />}
      {isLocked && (
        <p>
          Too many logins have failed. Where they did, {email} cannot log in until <DateTime time={parseTime(account.locked_until)} />.
        </p>
      )}
      <div class="buttons">
        {isLocked && (
          <Button busy={tasks.busy} onClick={() => void unlock()}>
            Unlock
          </Button>
        )}
        {account.active && (
          <Button busy={tasks.busy} onClick={makeLink}>
            Create a password link
          </Button>
        )}
        {account.second_factor && (
          <Button kind="danger" busy={tasks.busy} onClick={removeFactor}>
            Remove the second factor
          </Button>
        )}
        {account.active ? (
          <Button kind="danger" busy={tasks.busy} onClick={deactivate}>
            Deactivate
          </Button>
        ) : (
          <Button busy={tasks.busy} onClick={() => void activate()}>
            Activate
          </Button>
        )}
      </div>
    </Card>
  );
}

function Memberships({ account, onChanged }: CardProps) {
  const names = useLoaded(loadWorkspaceNames);
  const [workspace, setWorkspace] = useState("");
  const [role, setRole] = useState<Role>("viewer");
  const tasks = useTasks();
  const others = (names.data ?? []).filter((name) => account.memberships.every((one) => one.workspace !== name));
  const set = (name: string, role: Role): Promise<boolean> =>
    tasks.run({
      done: `${account.email} is now ${role} in ${name}.`,
      run: async () => {
        await setMember(name, account.id, role);
        await onChanged();
      },
    });
  const remove = (name: string): void =>
    tasks.ask({
      title: `Remove ${account.email} from ${name}?`,
      action: "Remove",
      text: <p>{account.email} then sees nothing of this workspace any more.</p>,
      done: `${account.email} does not belong to ${name} any more.`,
      run: async () => {
        await removeMember(name, account.id);
        await onChanged();
      },
    });
  return (
    <Card title="Workspaces">
      <p class="faint">Everybody belongs to the workspace default, with the role of their account.</p>
      <ProblemNotice problem={names.problem} retry={() => void names.reload()} />
      <TasksReport tasks={tasks} />
      {account.memberships.length > 0 && (
        <Table label="Workspaces" head={["Workspace", "Role", "Action"]}>
          {account.memberships.map((one) => (
            <tr key={one.workspace}>
              <th scope="row">{one.workspace}</th>
              <td>
                <RoleChange label={`Role in ${one.workspace}`} value={one.role} busy={tasks.busy} onChange={(changed) => void set(one.workspace, changed)} />
              </td>
              <td>
                <Button kind="danger" busy={tasks.busy} label={`Remove from ${one.workspace}`} onClick={() => remove(one.workspace)}>
                  Remove
                </Button>
              </td>
            </tr>
          ))}
        </Table>
      )}
      {others.length > 0 && (
        <form
          class="people-inline"
          aria-label="Add to a workspace"
          onSubmit={(event) => {
            event.preventDefault();
            void set(workspace || others[0]!, role).then((added) => added && setWorkspace(""));
          }}
        >
          <SelectField
            label="Workspace"
            value={workspace || others[0]!}
            options={others.map((name) => ({ value: name, label: name }))}
            onChange={setWorkspace}
          />
          <RoleField label="Role there" value={role} onChange={setRole} />
          <Button type="submit" busy={tasks.busy}>
            Add
          </Button>
        </form>
      )}
    </Card>
  );
}
