import "./people.css";
import { useStore } from "../lib/hooks";
import { href } from "../lib/router";
import { may, session } from "../session";
import { Page } from "../ui/parts";
import { type Tab, tabOf } from "./filters";
import { Invitations } from "./invitations";
import { Usage } from "./usage";
import { Users } from "./users";
import { Workspaces } from "./workspaces";

const LABELS: Record<Tab, string> = { users: "Users", invitations: "Invitations", workspaces: "Workspaces", usage: "Usage" };

export default function PeoplePage({ query }: { query: string }) {
  const current = useStore(session);
  if (current.kind !== "user") return null;
  const tabs: Tab[] = ["users", "invitations"];
  if (may(current.permissions, "admin:workspaces")) tabs.push("workspaces");
  tabs.push("usage");
  const shown = tabOf(query);
  return (
    <Page title="People">
      <nav aria-label="People">
        <ul class="tabs">
          {tabs.map((tab) => (
            <li key={tab}>
              <a class="tab" href={href("people", {}, tab === "users" ? "" : `tab=${tab}`)} aria-current={tab === shown ? "page" : undefined}>
                {LABELS[tab]}
              </a>
            </li>
          ))}
        </ul>
      </nav>
      {shown === "users" && <Users query={query} />}
      {shown === "invitations" && <Invitations />}
      {shown === "workspaces" && <Workspaces query={query} />}
      {shown === "usage" && <Usage query={query} />}
    </Page>
  );
}
