import { useState } from "preact/hooks";
import { answerOf, api } from "../api/client";
import { faultsByField } from "../api/problem";
import type { Invitation, PendingInvitation } from "../api/types";
import { asWords, parseTime } from "../lib/format";
import { useAction, useLoaded, usePages } from "../lib/hooks";
import { Age, Button, Card, DateTime, Notice, ProblemNotice, SelectField, Table } from "../ui/parts";
import { Paged } from "../ui/paged";
import { TasksReport, useTasks } from "../ui/tasks";
import { FormCard, NOBODY, OnceLink, PersonFields, RoleField } from "./parts";
import { loadWorkspaceNames } from "./workspaces";

export function Invitations() {
  const invitations = usePages(() => answerOf(api.GET("/admin/users/invitations")));
  const tasks = useTasks();
  const withdraw = ({ id, email }: PendingInvitation): void =>
    tasks.ask({
      title: "Withdraw this invitation?",
      action: "Withdraw it",
      text: <p>The link that {email} has can then not be used any more.</p>,
      done: `The invitation of ${email} is withdrawn.`,
      run: async () => {
        await answerOf(api.DELETE("/admin/users/invitations/{invitation_id}", { params: { path: { invitation_id: id } } }));
        await invitations.reload();
      },
    });
  return (
    <>
      <Invite onInvited={() => void invitations.reload()} />
      <Card title="Open invitations">
        <TasksReport tasks={tasks} />
        <Paged pages={invitations} noun="invitation" plural="invitations" empty={<p>Nobody has an invitation that can be accepted.</p>}>
          {(items) => (
            <Table label="Open invitations" head={["Address", "Role", "Workspaces", "Invited by", "Invited", "Valid until", "Action"]}>
              {items.map((invitation) => (
                <tr key={invitation.id}>
                  <th scope="row">
                    <span class="people-name">
                      <span>{invitation.email}</span>
                      {invitation.name && <span class="faint">{invitation.name}</span>}
                    </span>
                  </th>
                  <td>{asWords(invitation.role)}</td>
                  <td>{invitation.memberships.map(({ workspace, role }) => `${workspace} (${role})`).join(", ") || "–"}</td>
                  <td>{invitation.invited_by ?? "–"}</td>
                  <td>
                    <Age time={parseTime(invitation.created_at)} />
                  </td>
                  <td>
                    <DateTime time={parseTime(invitation.expires_at)} />
                  </td>
                  <td>
                    <Button kind="danger" busy={tasks.busy} label={`Withdraw the invitation of ${invitation.email}`} onClick={() => withdraw(invitation)}>
                      Withdraw
                    </Button>
                  </td>
                </tr>
              ))}
            </Table>
          )}
        </Paged>
      </Card>
    </>
  );
}

function Invite({ onInvited }: { onInvited: () => void }) {
  const workspaces = useLoaded(loadWorkspaceNames);
  const [draft, setDraft] = useState(NOBODY);
  const [member, setMember] = useState({ workspace: "", role: NOBODY.role });
  const [sent, setSent] = useState<Invitation | null>(null);
  const action = useAction();
  const faults = action.problem ? faultsByField(action.problem, "body.", ["email", "name", "role", "memberships"]).fields : {};
  const invite = async (): Promise<void> => {
    setSent(null);
    const memberships = member.workspace ? [member] : [];
    const body = { ...draft, name: draft.name.trim() || null, memberships };
    setSent(await answerOf(api.POST("/admin/users/invite", { body })));
    setDraft(NOBODY);
    onInvited();
  };
  return (
    <>
      {sent &&
        (sent.link === null ? (
          <Notice kind="success" onClose={() => setSent(null)}>
            The invitation of {sent.email} is on its way by mail.
          </Notice>
        ) : (
          <OnceLink
            title={`${sent.email} is invited, but this server sends no mail: pass the link on yourself.`}
            link={sent.link}
            expires={sent.expires_at}
            onClose={() => setSent(null)}
          />
        ))}
      <FormCard title="Invite somebody">
        <form
          class="form people-form"
          onSubmit={(event) => {
            event.preventDefault();
            void action.run(invite);
          }}
        >
          {Object.keys(faults).length === 0 && <ProblemNotice problem={action.problem} />}
          {faults["memberships"] && <Notice kind="error">Workspace: {faults["memberships"]}</Notice>}
          <PersonFields draft={draft} faults={faults} onChange={setDraft} />
          <SelectField
            label="Member of"
            value={member.workspace}
            options={[
              { value: "", label: "The default workspace only" },
              ...(workspaces.data ?? []).map((name) => ({ value: name, label: name })),
            ]}
            onChange={(workspace) => setMember({ ...member, workspace })}
          />
          {member.workspace && (
            <RoleField label={`Role in ${member.workspace}`} value={member.role} onChange={(role) => setMember({ ...member, role })} />
          )}
          <div class="buttons">
            <Button kind="primary" type="submit" busy={action.busy}>
              Invite
            </Button>
          </div>
        </form>
      </FormCard>
    </>
  );
}
