import type { ComponentType } from "preact";
import { useEffect, useState } from "preact/hooks";
import { problemOf } from "./api/problem";
import { useStore } from "./lib/hooks";
import { href, type RouteName, router, safeNext } from "./lib/router";
import { session, startSession } from "./session";
import { Shell } from "./ui/shell";
import { Button, Notice, Page, Spinner } from "./ui/parts";

interface PageProps {
  readonly params: Readonly<Record<string, string>>;
  readonly query: string;
}

type Loader = () => Promise<{ default: ComponentType<PageProps> }>;

const PAGES: Record<RouteName, Loader> = {
  live: () => import("./live/live-page"),
  job: () => import("./job/job-page"),
  start: () => import("./start/start-page"),
  agent: () => import("./agent/agent-page"),
  stream: () => import("./stream/stream-page"),
  people: () => import("./people/people-page"),
  person: () => import("./people/person-page"),
  audit: () => import("./audit/audit-page"),
  settings: () => import("./settings/settings-page"),
  mine: () => import("./mine/mine-page"),
  login: () => import("./account/login-page"),
  register: () => import("./account/register-page"),
  verifyEmail: () => import("./account/verify-email-page"),
  forgotPassword: () => import("./account/forgot-password-page"),
  resetPassword: () => import("./account/reset-password-page"),
};

/** Begins to load a page while it is not yet known who is logged in. */
export function preload(name: RouteName | "unknown"): void {
  // If it fails, showing the page tries again and says so.
  if (name !== "unknown") PAGES[name]().catch(() => undefined);
}

/** The pages for readers who are not logged in. */
const OPEN_PAGES: ReadonlySet<string> = new Set<RouteName>([
  "login",
  "register",
  "verifyEmail",
  "forgotPassword",
  "resetPassword",
]);

export function App() {
  const address = useStore(router());
  const current = useStore(session);
  const { name, params } = address.route;
  const isOpen = OPEN_PAGES.has(name);

  const mustLogIn = current.kind === "none" && !isOpen;
  const isDone = current.kind === "user" && name === "login";
  useEffect(() => {
    if (mustLogIn) {
      const next = new URLSearchParams({ next: address.path + (address.query ? `?${address.query}` : "") });
      router().go(href("login", {}, next.toString()), { replace: true });
    } else if (isDone) {
      const next = new URLSearchParams(address.query).get("next");
      router().go(safeNext(next, window.location.origin), { replace: true });
    }
  }, [mustLogIn, isDone, address]);

  if (mustLogIn || isDone) return null;
  if (!isOpen && current.kind === "unknown") {
    return current.error === null ? <Spinner label="Loading" /> : <Unreachable error={current.error} />;
  }
  // A page of its own for each path: its state and its focus begin anew.
  const page = name === "unknown" ? <NotFound /> : <Lazy key={address.path} name={name} params={params} query={address.query} />;
  if (isOpen) return <main class="lone">{page}</main>;
  return <Shell route={name}>{page}</Shell>;
}

function Lazy({ name, ...props }: PageProps & { name: RouteName }) {
  const [state, setState] = useState<{ page: ComponentType<PageProps> | null; failed: boolean }>({
    page: null,
    failed: false,
  });
  useEffect(() => {
    let gone = false;
    PAGES[name]().then(
      (module) => gone || setState({ page: module.default, failed: false }),
      () => gone || setState({ page: null, failed: true }),
    );
    return () => {
      gone = true;
    };
  }, [name]);
  if (state.failed) return <Outdated />;
  return state.page ? <state.page {...props} /> : <Spinner label="Loading the page" />;
}

/** The file of a page is missing after an update of the server: loading the document again finds the new one. */
function Outdated() {
  return (
    <Page title="This page could not be loaded">
      <Notice kind="error">The connection failed, or the console was updated meanwhile.</Notice>
      <Button kind="primary" onClick={() => window.location.reload()}>
        Load again
      </Button>
    </Page>
  );
}

function NotFound() {
  return (
    <Page title="There is no such page">
      <p>
        <a href={href("live")}>Go to the live view</a>
      </p>
    </Page>
  );
}

function Unreachable({ error }: { error: unknown }) {
  const { title, detail } = problemOf(error);
  return (
    <main class="lone">
      <Page title={title}>
        <p>{detail}</p>
        <Button kind="primary" onClick={() => void startSession()}>
          Try again
        </Button>
      </Page>
    </main>
  );
}
