import { useState } from "preact/hooks";
import { answerOf, api } from "../api/client";
import { faultsByField } from "../api/problem";
import { type Member, type Role, type Workspace } from "../api/types";
import { formatNumber, parseTime } from "../lib/format";
import { useAction, usePages } from "../lib/hooks";
import { href } from "../lib/router";
import { Age, Button, Card, ProblemNotice, Table, TextField } from "../ui/parts";
import { Paged } from "../ui/paged";
import { TasksReport, useTasks } from "../ui/tasks";
import { FormCard, RoleField, RoleChange } from "./parts";

/** Everybody belongs to it, with the role of their account. */
const DEFAULT = "default";

/** The workspaces that have members of their own. */
export async function loadWorkspaceNames(): Promise<string[]> {
  const { items } = await answerOf(api.GET("/admin/workspaces"));
  return items.map(({ name }) => name).filter((name) => name !== DEFAULT);
}

export function setMember(workspace: string, userId: string, role: Role): Promise<Member> {
  const path = { name: workspace, user_id: userId };
  return answerOf(api.PUT("/admin/workspaces/{name}/members/{user_id}", { params: { path }, body: { role } }));
}

export function removeMember(workspace: string, userId: string): Promise<unknown> {
  const path = { name: workspace, user_id: userId };
  return answerOf(api.DELETE("/admin/workspaces/{name}/members/{user_id}", { params: { path } }));
}

const addressOf = (name: string): string => href("people", {}, new URLSearchParams({ tab: "workspaces", workspace: name }).toString());

export function Workspaces({ query }: { query: string }) {
  const chosen = new URLSearchParams(query).get("workspace");
  const workspaces = usePages(() => answerOf(api.GET("/admin/workspaces")));
  const tasks = useTasks();
  const remove = ({ name }: Workspace): void =>
    tasks.ask({
      title: "Delete this workspace?",
      action: "Delete it",
      text: <p>{name} can be deleted if it has neither members nor jobs.</p>,
      done: `The workspace ${name} is deleted.`,
      run: async () => {
        await answerOf(api.DELETE("/admin/workspaces/{name}", { params: { path: { name } } }));
        await workspaces.reload();
      },
    });
  return (
    <>
      <Card title="Workspaces">
        <TasksReport tasks={tasks} />
        <Paged pages={workspaces} noun="workspace" plural="workspaces" empty={<p>There are no workspaces.</p>}>
          {(items) => (
            <Table label="Workspaces" head={["Workspace", "Members", "Created", "Action"]}>
              {items.map((workspace) => (
                <tr key={workspace.name}>
                  <th scope="row">
                    <a href={addressOf(workspace.name)} aria-current={workspace.name === chosen ? "true" : undefined}>
                      {workspace.name}
                    </a>
                  </th>
                  <td class="number">{workspace.name === DEFAULT ? "Everybody" : formatNumber(workspace.members)}</td>
                  <td>
                    <Age time={parseTime(workspace.created_at)} />
                  </td>
                  <td>
                    {workspace.name !== DEFAULT && (
                      <Button kind="danger" busy={tasks.busy} label={`Delete ${workspace.name}`} onClick={() => remove(workspace)}>
                        Delete
                      </Button>
                    )}
                  </td>
                </tr>
              ))}
            </Table>
          )}
        </Paged>
      </Card>
      {chosen === DEFAULT && (
        <Card title={`Members of ${DEFAULT}`}>
          <p>Everybody belongs to this workspace, with the role of their account.</p>
        </Card>
      )}
      {chosen && chosen !== DEFAULT && <Members key={chosen} workspace={chosen} onChanged={() => void workspaces.reload()} />}
      <NewWorkspace onCreated={() => void workspaces.reload()} />
    </>
  );
}

function Members({ workspace, onChanged }: { workspace: string; onChanged: () => void }) {
  const members = usePages(() =>
    answerOf(api.GET("/admin/workspaces/{name}/members", { params: { path: { name: workspace } } })),
  );
  const tasks = useTasks();
  const changed = async (): Promise<void> => {
    await members.reload();
    onChanged();
  };
  const remove = ({ id, email }: Member): void =>
    tasks.ask({
      title: "Remove this member?",
      action: "Remove",
      text: (
        <p>
          {email} then sees nothing of {workspace} any more.
        </p>
      ),
      done: `${email} does not belong to ${workspace} any more.`,
      run: async () => {
        await removeMember(workspace, id);
        await changed();
      },
    });
  return (
    <Card title={`Members of ${workspace}`}>
      <TasksReport tasks={tasks} />
      <Paged pages={members} noun="member" plural="members" empty={<p>Nobody is a member of {workspace}.</p>}>
        {(items) => (
          <Table label={`Members of ${workspace}`} head={["Member", "Role", "Action"]}>
            {items.map((member) => (
              <tr key={member.id}>
                <th scope="row">
                  <span class="people-name">
                    <a href={href("person", { id: member.id })}>{member.email}</a>
                    {member.name && <span class="faint">{member.name}</span>}
                  </span>
                </th>
                <td>
                  <RoleChange
                    label={`Role of ${member.email}`}
                    value={member.role}
                    busy={tasks.busy}
                    onChange={(role) =>
                      void tasks.run({
                        done: `${member.email} is now ${role} in ${workspace}.`,
                        run: async () => {
                          await setMember(workspace, member.id, role);
                          await changed();
                        },
                      })
                    }
                  />
                </td>
                <td>
                  <Button kind="danger" busy={tasks.busy} label={`Remove ${member.email}`} onClick={() => remove(member)}>
                    Remove
                  </Button>
                </td>
              </tr>
            ))}
          </Table>
        )}
      </Paged>
      <AddMember workspace={workspace} onAdded={changed} />
    </Card>
  );
}

function AddMember({ workspace, onAdded }: { workspace: string; onAdded: () => Promise<void> }) {
  const [email, setEmail] = useState("");
  const [role, setRole] = useState<Role>("viewer");
  const [unknown, setUnknown] = useState(false);
  const action = useAction();
  const add = async (): Promise<void> => {
    const search = email.trim();
    const { items } = await answerOf(api.GET("/admin/users", { params: { query: { search, limit: 200 } } }));
    const account = items.find((one) => one.email.toLowerCase() === search.toLowerCase());
    setUnknown(account === undefined);
    if (account === undefined) return;
    await setMember(workspace, account.id, role);
    setEmail("");
    await onAdded();
  };
  return (
    <form
      class="people-inline"
      aria-label={`Add a member to ${workspace}`}
      onSubmit={(event) => {
        event.preventDefault();
        void action.run(add);
      }}
    >
      <ProblemNotice problem={action.problem} />
      <TextField
        label="Address of a user"
        type="email"
        required
        maxLength={200}
        value={email}
        error={unknown ? "There is no account with this address." : undefined}
        onInput={(text) => {
          setEmail(text);
          setUnknown(false);
        }}
      />
      <RoleField label="Role" value={role} onChange={setRole} />
      <Button type="submit" busy={action.busy}>
        Add the member
      </Button>
    </form>
  );
}

function NewWorkspace({ onCreated }: { onCreated: () => void }) {
  const [name, setName] = useState("");
  const tasks = useTasks();
  const faults = tasks.problem ? faultsByField(tasks.problem, "body.", ["name"]).fields : {};
  return (
    <FormCard title="Create a workspace">
      <form
        class="form people-form"
        onSubmit={(event) => {
          event.preventDefault();
          void tasks.run({
            done: `The workspace ${name} is created.`,
            run: async () => {
              await answerOf(api.POST("/admin/workspaces", { body: { name } }));
              setName("");
              onCreated();
            },
          });
        }}
      >
        <TasksReport tasks={faults["name"] ? { ...tasks, problem: null } : tasks} />
        <TextField
          label="Name"
          required
          maxLength={63}
          value={name}
          error={faults["name"]}
          hint="Letters, digits, dots, hyphens and underscores."
          onInput={setName}
        />
        <div class="buttons">
          <Button kind="primary" type="submit" busy={tasks.busy}>
            Create the workspace
          </Button>
        </div>
      </form>
    </FormCard>
  );
}
