import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { useStore, useAction } from "../lib/hooks";
import { href, type RouteName } from "../lib/router";
import { logOut, may, session } from "../session";
import { Icon, type IconName, Logo } from "./icons";
import { Button, ProblemNotice } from "./parts";

interface Entry {
  readonly route: RouteName;
  readonly label: string;
  readonly icon: IconName;
  /** The permission without which the page shows nothing; none for pages of everybody. */
  readonly permission?: string;
}

const ENTRIES: readonly Entry[] = [
  { route: "live", label: "Live", icon: "live", permission: "jobs:read" },
  { route: "start", label: "Start", icon: "start", permission: "tools:query" },
  { route: "agent", label: "Agent", icon: "agent", permission: "agent:read" },
  { route: "stream", label: "Stream", icon: "stream", permission: "admin:stream" },
  { route: "people", label: "People", icon: "people", permission: "admin:users" },
  { route: "audit", label: "Audit", icon: "audit", permission: "admin:audit" },
  { route: "settings", label: "Settings", icon: "settings", permission: "admin:config" },
  { route: "mine", label: "Mine", icon: "mine" },
];

/** Pages that belong to an entry with another route. */
const PARENTS: Readonly<Record<string, RouteName>> = { job: "live", person: "people" };

/** The frame around the pages of users who are logged in. */
export function Shell({ route, children }: { route: string; children: ComponentChildren }) {
  const current = useStore(session);
  const action = useAction();
  const nav = useRef<HTMLElement>(null);
  useEffect(() => {
    // Where the entries do not fit, they scroll.
    nav.current?.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
  }, [route]);
  if (current.kind !== "user") return null;
  const { user, permissions } = current;
  const entries = ENTRIES.filter(({ permission }) => !permission || may(permissions, permission));
  const shown = PARENTS[route] ?? route;
  return (
    <div class="shell">
      <a class="skip" href="#main">
        Skip to the content
      </a>
      <header class="bar">
        <a class="brand" href={href("live")}>
          <Logo />
          <span>Shield</span>
        </a>
        <nav aria-label="Pages" ref={nav}>
          <ul>
            {entries.map((entry) => (
              <li key={entry.route}>
                <a href={href(entry.route)} aria-current={entry.route === shown ? "page" : undefined}>
                  <Icon name={entry.icon} />
                  <span>{entry.label}</span>
                </a>
              </li>
            ))}
          </ul>
        </nav>
        <div class="account">
          <span class="account-name" title={user.email}>
            {user.email}
          </span>
          <Button kind="quiet" busy={action.busy} label="Log out" onClick={() => void action.run(() => logOut(false))}>
            <Icon name="logout" />
          </Button>
        </div>
      </header>
      <main id="main" tabIndex={-1}>
        <ProblemNotice problem={action.problem} />
        {children}
      </main>
    </div>
  );
}
