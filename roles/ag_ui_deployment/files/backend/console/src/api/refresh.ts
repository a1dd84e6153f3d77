/** Renews the cookies of the session when the access token has expired. */

export type RefreshOutcome = "renewed" | "ended" | "failed";

let pending: Promise<RefreshOutcome> | null = null;

/** Sends one refresh at a time; callers that come meanwhile share its outcome. */
export function refresh(): Promise<RefreshOutcome> {
  pending ??= inTurn(send).finally(() => {
    pending = null;
  });
  return pending;
}

/** Tabs share the cookies: one after another, so that none uses a token that another has replaced. */
async function inTurn<T>(action: () => Promise<T>): Promise<T> {
  const locks = navigator.locks as LockManager | undefined;
  return locks ? await locks.request("shield-refresh", action) : action();
}

async function send(): Promise<RefreshOutcome> {
  try {
    const response = await fetch("/auth/refresh", { method: "POST" });
    // 409: another refresh at the same moment has set the new cookies.
    if (response.ok || response.status === 409) return "renewed";
    return response.status === 401 ? "ended" : "failed";
  } catch {
    return "failed";
  }
}
