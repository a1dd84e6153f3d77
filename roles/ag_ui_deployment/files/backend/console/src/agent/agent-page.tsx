import "./agent.css";
import { useEffect, useMemo, useRef } from "preact/hooks";
import { answerOf, api } from "../api/client";
import { usePages, useStore } from "../lib/hooks";
import { href, router } from "../lib/router";
import { session } from "../session";
import { Page } from "../ui/parts";
import { Conversation } from "./conversation";
import { ThreadModel } from "./thread-model";
import { ThreadNav } from "./thread-nav";

/** Tells the other tabs of this browser which conversation has changed. */
const CHANNEL = "shield-agent";

export default function AgentPage({ query }: { query: string }) {
  const current = useStore(session);
  const user = current.kind === "user" ? current.user : null;
  const params = new URLSearchParams(query);
  const owner = params.get("owner");
  const threads = usePages((cursor) => answerOf(api.GET("/agent/threads", { params: { query: { cursor } } })));
  const model = useModel(params.get("thread"), owner === user?.id ? null : owner, threads.reload);
  if (!user || current.kind !== "user") return null;
  return (
    <Page title="Agent" class="agent-page">
      <div class="agent">
        <ThreadNav threads={threads} thread={model.id} owner={model.owner} userId={user.id} />
        <Conversation key={model.id} model={model} permissions={current.permissions} />
      </div>
    </Page>
  );
}

/** The model of the conversation in the address. A new conversation gets its address when its first run has begun. */
function useModel(id: string | null, owner: string | null, reloadThreads: () => Promise<void>): ThreadModel {
  const channel = useMemo(() => new BroadcastChannel(CHANNEL), []);
  const held = useRef<ThreadModel | null>(null);
  const known = held.current;
  const isShown = known && (id === null ? !known.exists : known.id === id && known.owner === owner);
  if (!isShown) {
    const model: ThreadModel = new ThreadModel({
      id,
      owner,
      onChange: () => {
        channel.postMessage(model.id);
        void reloadThreads();
        const isNew = new URLSearchParams(router().value.query).get("thread") === null;
        if (isNew && model.exists && !model.isClosed) router().go(href("agent", {}, new URLSearchParams({ thread: model.id }).toString()), { replace: true });
      },
    });
    held.current = model;
  }
  const model = held.current!;

  useEffect(() => {
    model.open();
    return () => model.close();
  }, [model]);
  useEffect(() => () => channel.close(), [channel]);
  useEffect(() => {
    channel.onmessage = ({ data }) => {
      void reloadThreads();
      if (data === model.id) void model.refresh();
    };
    // Another browser may have begun a run while this page was not looked at.
    const onVisible = (): void => {
      if (document.visibilityState === "visible") void model.refresh();
    };
    document.addEventListener("visibilitychange", onVisible);
    return () => document.removeEventListener("visibilitychange", onVisible);
  }, [model, channel, reloadThreads]);
  return model;
}
