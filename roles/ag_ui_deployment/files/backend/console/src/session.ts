/** Who is logged in, and what they may do. */

import { answerOf, api, onSessionEnd } from "./api/client";
import { ApiError } from "./api/problem";
import type { Permissions, User } from "./api/types";
import { Store } from "./lib/store";

export type Session =
  | { readonly kind: "unknown"; readonly error: unknown }
  /** `expired`: there was a session, and it has ended. */
  | { readonly kind: "none"; readonly expired: boolean }
  | { readonly kind: "user"; readonly user: User; readonly permissions: Permissions };

export const session = new Store<Session>({ kind: "unknown", error: null });

onSessionEnd(() => {
  session.set({ kind: "none", expired: session.value.kind === "user" });
});

/** Reads who is logged in. Returns whether anybody is; throws if the server does not say. */
export async function loadSession(): Promise<boolean> {
  try {
    const [user, permissions] = await Promise.all([
      answerOf(api.GET("/auth/me")),
      answerOf(api.GET("/api/permissions")),
    ]);
    const before = session.value;
    if (before.kind !== "user" || JSON.stringify([before.user, before.permissions]) !== JSON.stringify([user, permissions])) {
      session.set({ kind: "user", user, permissions });
    }
    return true;
  } catch (error) {
    if (error instanceof ApiError && error.problem.status === 401) {
      session.set({ kind: "none", expired: session.value.kind === "user" });
      return false;
    }
    throw error;
  }
}

export async function startSession(): Promise<void> {
  try {
    await loadSession();
  } catch (error) {
    session.set({ kind: "unknown", error });
  }
}

export async function logOut(everywhere: boolean): Promise<void> {
  await answerOf(api.POST("/auth/logout", { params: { query: { everywhere } } }));
  session.set({ kind: "none", expired: false });
}

/** Whether the caller has a permission in one workspace at least. */
export function may(permissions: Permissions, permission: string): boolean {
  if (permissions.everywhere && (permissions.matrix[permission]?.["admin"] ?? "none") !== "none") return true;
  return permissions.workspaces.some((entry) => (entry.permissions[permission] ?? "none") !== "none");
}

/** The workspaces where the caller has a permission. */
export function workspacesWith(permissions: Permissions, permission: string): string[] {
  return permissions.workspaces
    .filter((entry) => (entry.permissions[permission] ?? "none") !== "none")
    .map((entry) => entry.workspace);
}
