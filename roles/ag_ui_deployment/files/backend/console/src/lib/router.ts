/** Addresses of the console's pages, by the history of the browser. */

import { Store } from "./store";

export const BASE = "/console";

const ROUTES = {
  live: "/live",
  job: "/jobs/:id",
  start: "/start",
  agent: "/agent",
  stream: "/stream",
  people: "/people",
  person: "/people/:id",
  audit: "/audit",
  settings: "/settings",
  mine: "/mine",
  login: "/login",
  register: "/register",
  verifyEmail: "/verify-email",
  forgotPassword: "/forgot-password",
  resetPassword: "/reset-password",
} as const;

export type RouteName = keyof typeof ROUTES;

export interface Route {
  readonly name: RouteName | "unknown";
  readonly params: Readonly<Record<string, string>>;
}

export interface Address {
  readonly path: string;
  readonly query: string;
  readonly route: Route;
}

/** Finds the route of a path below the base. The base itself is the page Live. */
export function match(path: string): Route {
  const inner = path === BASE ? "/" : path.startsWith(`${BASE}/`) ? path.slice(BASE.length) : null;
  if (inner === null) return { name: "unknown", params: {} };
  if (inner === "/") return { name: "live", params: {} };
  const parts = inner.replace(/\/$/, "").split("/");
  for (const [name, pattern] of Object.entries(ROUTES)) {
    const params = matchPattern(pattern.split("/"), parts);
    if (params) return { name: name as RouteName, params };
  }
  return { name: "unknown", params: {} };
}

function matchPattern(pattern: readonly string[], parts: readonly string[]): Record<string, string> | null {
  if (pattern.length !== parts.length) return null;
  const params: Record<string, string> = {};
  for (const [index, expected] of pattern.entries()) {
    const part = parts[index]!;
    if (expected.startsWith(":")) {
      const value = decoded(part);
      if (!value) return null;
      params[expected.slice(1)] = value;
    } else if (expected !== part) return null;
  }
  return params;
}

function decoded(part: string): string | null {
  try {
    return decodeURIComponent(part);
  } catch {
    return null;
  }
}

/** Builds the address of a page. */
export function href(name: RouteName, params: Readonly<Record<string, string>> = {}, query = ""): string {
  const path = ROUTES[name].replace(/:(\w+)/g, (_, key: string) => encodeURIComponent(params[key] ?? ""));
  return BASE + path + (query ? `?${query}` : "");
}

/**
 * The page to show after the login: that of the address in `next` if it is one of the console, else Live.
 * Only its path counts: a link must not send its reader to another host.
 */
export function safeNext(next: string | null, origin: string): string {
  const home = href("live");
  if (!next) return home;
  let url: URL;
  try {
    url = new URL(next, origin);
  } catch {
    return home;
  }
  const route = match(url.pathname).name;
  return route === "unknown" || route === "login" ? home : url.pathname + url.search;
}

function read(): Address {
  const { pathname, search } = window.location;
  return { path: pathname, query: search.replace(/^\?/, ""), route: match(pathname) };
}

class Router extends Store<Address> {
  /** Whether the reader has come from another page of the console. */
  navigated = false;

  constructor() {
    super(read());
    window.addEventListener("popstate", () => this.#arrive());
    document.addEventListener("click", (event) => this.#follow(event));
  }

  go(to: string, options: { replace?: boolean } = {}): void {
    if (options.replace) window.history.replaceState(null, "", to);
    else window.history.pushState(null, "", to);
    this.#arrive();
  }

  #arrive(): void {
    const before = this.value.path;
    const address = read();
    if (address.path !== before) {
      this.navigated = true;
      window.scrollTo(0, 0);
    }
    this.set(address);
  }

  /** Opens links to pages of the console without loading the document again. */
  #follow(event: MouseEvent): void {
    if (event.defaultPrevented || event.button !== 0) return;
    if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    const link = event.target instanceof Element ? event.target.closest("a") : null;
    if (!link || link.target || link.hasAttribute("download")) return;
    const url = new URL(link.href, window.location.href);
    if (url.origin !== window.location.origin || url.hash || match(url.pathname).name === "unknown") return;
    event.preventDefault();
    this.go(url.pathname + url.search);
  }
}

let instance: Router | undefined;

/** The router of the document; created when first needed, so that tests can import this module. */
export function router(): Router {
  instance ??= new Router();
  return instance;
}
