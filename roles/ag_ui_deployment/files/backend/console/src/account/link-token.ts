/** The token of a link in a mail, in the fragment of the address, which browsers do not send. */

import { useEffect, useState } from "preact/hooks";

const MAX = 200;

export function tokenOf(hash: string): string | null {
  const token = new URLSearchParams(hash.replace(/^#/, "")).get("token");
  return token && token.length <= MAX ? token : null;
}

/** Reads the token once, and removes it from the address and so from the history. */
export function useLinkToken(): string | null {
  const [token] = useState(() => tokenOf(window.location.hash));
  useEffect(() => {
    if (window.location.hash) window.history.replaceState(null, "", window.location.pathname + window.location.search);
  }, []);
  return token;
}
