import type { ComponentChildren } from "preact";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import type { Permissions } from "../api/types";
import { useAction, useStore } from "../lib/hooks";
import { memo } from "../lib/memo";
import { href, router } from "../lib/router";
import { may, workspacesWith } from "../session";
import { Connection } from "../ui/connection";
import { Button, Confirm, CopyButton, Field, Notice, ProblemNotice, SelectField, Spinner, TextField } from "../ui/parts";
import { ToolCallDetails } from "../ui/tool-call";
import { Markdown } from "./markdown";
import { type Part, type Turn, turnsOf, withOutput } from "./messages";
import type { AgentRun, CallTimes } from "./agent-run";
import type { ThreadModel, ThreadState } from "./thread-model";

const DEFAULT_WORKSPACE = "default";
const TITLE_MAX = 200;
/** A reader who is this close to the end of the page sees what is added there. */
const FOLLOW_PX = 120;

export function Conversation({ model, permissions }: { model: ThreadModel; permissions: Permissions }) {
  const state = useStore(model.state);
  const feed = useStore(model.feed);
  const workspaces = useMemo(() => workspacesWith(permissions, "agent:run"), [permissions]);
  const [chosen, setChosen] = useState(() => (workspaces.includes(DEFAULT_WORKSPACE) ? DEFAULT_WORKSPACE : workspaces[0]));
  const section = useRef<HTMLElement>(null);
  const again = useAction();
  const { messages, run, summary } = state;
  const before = useMemo(() => turnsOf(messages), [messages]);
  const turns = useMemo(() => (run ? withOutput(before, [...run.messages.values()]) : before), [before, run]);
  useFollowedEnd(state);

  const isRunning = run?.status === "running";
  const workspace = summary?.workspace ?? chosen;
  const maySend = model.owner === null && workspace !== undefined && workspaces.includes(workspace);
  const regenerate = (): void => {
    if (!workspace) return;
    // The button goes: the focus moves to the one that stops the answer.
    void again.run(() => model.regenerate(workspace)).then(() => section.current?.querySelector<HTMLElement>(".composer button")?.focus());
  };
  return (
    <section ref={section} class="conversation" aria-label="Conversation">
      <Head model={model} state={state} mayChange={may(permissions, "agent:run")} />
      <ProblemNotice problem={state.problem} retry={() => void model.load()} />
      {state.loading && messages.length === 0 && <Spinner label="Loading the conversation" />}
      {state.hasEarlier && <Notice kind="warning">This conversation is so long that its first messages are not shown, and not sent to the model.</Notice>}
      {!state.loading && turns.length === 0 && !state.problem && (
        <div class="empty">
          <p>Ask about what Shield knows, or have it crawl a web site or ingest a document.</p>
        </div>
      )}
      <div class="turns" role="log" aria-live="polite" aria-label="Messages" aria-busy={isRunning}>
        {turns.map((turn, index) => {
          const isLast = index === turns.length - 1;
          return <TurnView key={turn.key} turn={turn} times={isLast && run ? run.times : NO_TIMES} isRunning={isLast && isRunning} asker={model.owner === null ? "You" : "User"} />;
        })}
      </div>
      {run && <Outcome run={run} />}
      {isRunning && feed && <Connection feed={feed} />}
      <ProblemNotice problem={again.problem} />
      {maySend && !isRunning && turns.at(-1)?.question != null && (
        <div class="buttons">
          <Button busy={again.busy} onClick={regenerate}>
            {turns.at(-1)!.parts.length > 0 ? "Answer again" : "Try again"}
          </Button>
        </div>
      )}
      {maySend && (
        <Composer model={model} isRunning={isRunning} workspace={workspace}>
          {!model.exists && workspaces.length > 1 && (
            <SelectField label="Workspace" value={workspace} options={workspaces.map((name) => ({ value: name, label: name }))} onChange={setChosen} />
          )}
        </Composer>
      )}
      {!maySend && !state.loading && <p class="faint">{model.owner === null ? "You may not run the agent here." : "This is the conversation of another user: you can read it."}</p>}
    </section>
  );
}

const NO_TIMES: ReadonlyMap<string, CallTimes> = new Map();

/** Keeps the end of the page in sight while it grows, unless the reader has scrolled away from it. */
function useFollowedEnd({ messages, run }: ThreadState): void {
  const follows = useRef(true);
  useEffect(() => {
    const check = (): void => {
      const { scrollHeight, clientHeight } = document.documentElement;
      follows.current = window.scrollY + clientHeight >= scrollHeight - FOLLOW_PX;
    };
    window.addEventListener("scroll", check, { passive: true });
    return () => window.removeEventListener("scroll", check);
  }, []);
  useLayoutEffect(() => {
    if (follows.current && messages.length > 0) window.scrollTo(0, document.documentElement.scrollHeight);
  }, [messages, run]);
}

function Head({ model, state, mayChange }: { model: ThreadModel; state: ThreadState; mayChange: boolean }) {
  const action = useAction();
  const [mode, setMode] = useState<"show" | "rename" | "delete">("show");
  const title = state.summary?.title || (model.exists ? "Conversation" : "New conversation");
  const head = useRef<HTMLDivElement>(null);
  const leaveRename = (): void => {
    setMode("show");
    // The focus goes back to where it came from.
    requestAnimationFrame(() => head.current?.querySelector("button")?.focus());
  };
  const remove = async (): Promise<void> => {
    setMode("show");
    if (!(await action.run(() => model.delete()))) return;
    router().go(href("agent"));
    requestAnimationFrame(() => document.querySelector<HTMLElement>(".composer textarea")?.focus());
  };
  return (
    <>
      <div class="card-head" ref={head}>
        <h2>{title}</h2>
        {state.summary && mayChange && mode !== "rename" && (
          <div class="buttons">
            <Button kind="quiet" onClick={() => setMode("rename")}>
              Rename
            </Button>
            <Button kind="quiet" busy={action.busy} onClick={() => setMode("delete")}>
              Delete
            </Button>
          </div>
        )}
      </div>
      {mode === "rename" && <Rename model={model} title={state.summary?.title ?? ""} onDone={leaveRename} />}
      <ProblemNotice problem={action.problem} />
      {mode === "delete" && (
        <Confirm
          title="Delete this conversation?"
          action="Delete the conversation"
          onCancel={() => setMode("show")}
          onConfirm={() => void remove()}
        >
          <p>{title}</p>
          <p>Its messages cannot be brought back. Jobs that it has started go on.</p>
        </Confirm>
      )}
    </>
  );
}

function Rename({ model, title, onDone }: { model: ThreadModel; title: string; onDone: () => void }) {
  const [value, setValue] = useState(title);
  const action = useAction();
  return (
    <form
      class="rename"
      onSubmit={(event) => {
        event.preventDefault();
        if (value.trim()) void action.run(() => model.rename(value.trim())).then((done) => done && onDone());
      }}
    >
      <TextField label="Title" value={value} maxLength={TITLE_MAX} required focus onInput={setValue} />
      <ProblemNotice problem={action.problem} />
      <div class="buttons">
        <Button type="submit" kind="primary" busy={action.busy}>
          Save
        </Button>
        <Button onClick={onDone}>Back</Button>
      </div>
    </form>
  );
}

interface TurnProps {
  turn: Turn;
  times: ReadonlyMap<string, CallTimes>;
  /** Whether the answer is still being written. */
  isRunning: boolean;
  asker: string;
}

/** A question and its answer; rendered again only if something of it has changed. */
const TurnView = memo(({ turn, times, isRunning, asker }: TurnProps) => {
  const text = turn.parts.flatMap((part) => (part.kind === "text" ? [part.text] : [])).join("\n\n");
  return (
    <article class="turn">
      {turn.question !== null && (
        <div class="question">
          <h3>{asker}</h3>
          <p class="answer">{turn.question}</p>
        </div>
      )}
      {turn.earlier.length > 0 && (
        <details>
          <summary class="faint">Earlier answers</summary>
          <Parts parts={turn.earlier} times={NO_TIMES} isRunning={false} />
        </details>
      )}
      {(turn.parts.length > 0 || isRunning) && (
        <div class="reply">
          <h3>Agent</h3>
          <Parts parts={turn.parts} times={times} isRunning={isRunning} />
          {isRunning && turn.parts.length === 0 && <p class="faint">Thinking…</p>}
          {!isRunning && text && <CopyButton text={text} label="Copy the answer" />}
        </div>
      )}
    </article>
  );
});

function Parts({ parts, times, isRunning }: { parts: readonly Part[] } & Pick<TurnProps, "times" | "isRunning">) {
  return (
    <>
      {parts.map((part) =>
        part.kind === "call" ? (
          <CallPart key={part.key} part={part} times={times.get(part.key)} isRunning={isRunning} />
        ) : (
          <TextPart key={`${part.kind} ${part.key}`} part={part} />
        ),
      )}
    </>
  );
}

function TextPart({ part }: { part: Exclude<Part, { kind: "call" }> }) {
  if (part.kind === "text") return <Markdown text={part.text} />;
  return (
    <details class="reasoning">
      <summary class="faint">Reasoning</summary>
      <p class="answer faint">{part.text}</p>
    </details>
  );
}

/** A call that happens now is unfolded; one of the past is one line. */
function CallPart({ part, times, isRunning }: { part: Extract<Part, { kind: "call" }>; times: CallTimes | undefined; isRunning: boolean }) {
  const { call } = part;
  const status = call.result !== null ? "completed" : isRunning ? "running" : null;
  const startedAt = times && (times.endedAt !== null || isRunning) ? times.startedAt : null;
  return <ToolCallDetails call={call} status={status} startedAt={startedAt} endedAt={times?.endedAt ?? null} open={status === "running"} />;
}

interface ComposerProps {
  model: ThreadModel;
  isRunning: boolean;
  workspace: string;
  children: ComponentChildren;
}

function Composer({ model, isRunning, workspace, children }: ComposerProps) {
  const [text, setText] = useState("");
  const [stopping, setStopping] = useState(false);
  const send = useAction();
  const stop = useAction();
  const input = useRef<HTMLTextAreaElement>(null);
  useEffect(() => {
    if (!isRunning) setStopping(false);
  }, [isRunning]);

  const submit = (): void => {
    if (text.trim() === "" || isRunning) return;
    void send.run(() => model.send(text.trim(), workspace)).then((sent) => sent && setText(""));
    input.current?.focus();
  };
  return (
    <form
      class="composer"
      onSubmit={(event) => {
        event.preventDefault();
        submit();
      }}
    >
      <ProblemNotice problem={send.problem ?? stop.problem} />
      {children && <div>{children}</div>}
      <Field label="Message" hint="Enter sends the message, Shift+Enter begins a new line.">
        {(attributes) => (
          <textarea
            {...attributes}
            ref={input}
            rows={2}
            value={text}
            onInput={(event) => setText(event.currentTarget.value)}
            onKeyDown={(event) => {
              if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
              event.preventDefault();
              submit();
            }}
          />
        )}
      </Field>
      <div class="buttons">
        {isRunning ? (
          <Button kind="danger" busy={stop.busy || stopping} onClick={() => void stop.run(() => model.stop()).then(setStopping)}>
            {stopping ? "Stopping…" : "Stop"}
          </Button>
        ) : (
          <Button kind="primary" type="submit" busy={send.busy}>
            {send.busy ? "Sending…" : "Send"}
          </Button>
        )}
      </div>
    </form>
  );
}

/** How the run has ended. */
function Outcome({ run }: { run: AgentRun }) {
  if (run.failure) return <Notice kind="error">{run.failure.message}</Notice>;
  if (run.status === "cancelled") return <Notice kind="info">This answer was stopped.</Notice>;
  if (run.isCut) return <Notice kind="warning">The answer has reached the model's limit of length, and ends in the middle.</Notice>;
  return null;
}
