import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import type { Problem } from "../api/problem";
import { useAction } from "../lib/hooks";
import { Confirm, ProblemNotice } from "./parts";

export interface Task {
  run: () => Promise<unknown>;
  /** What is said when it has succeeded. */
  done: string;
}

interface Question extends Task {
  title: string;
  /** The label of the button that confirms. */
  action: string;
  text: ComponentChildren;
}

export interface Tasks {
  readonly busy: boolean;
  readonly problem: Problem | null;
  readonly done: string;
  readonly question: Question | null;
  run(task: Task): Promise<boolean>;
  /** Runs the task once the reader has confirmed it; null takes the question back. */
  ask(question: Question | null): void;
}

/** What the buttons of a page do, one at a time. `TasksReport` shows how they end. */
export function useTasks(): Tasks {
  const action = useAction();
  const [done, setDone] = useState("");
  const [question, setQuestion] = useState<Question | null>(null);
  const run = (task: Task): Promise<boolean> => {
    setDone("");
    return action.run(async () => {
      await task.run();
      setDone(task.done);
    });
  };
  return { busy: action.busy, problem: action.problem, done, question, run, ask: setQuestion };
}

export function TasksReport({ tasks }: { tasks: Tasks }) {
  const { problem, done, question } = tasks;
  const report = useRef<HTMLDivElement>(null);
  useEffect(() => {
    // The button has gone with what it was about.
    if (done && document.activeElement === document.body) report.current?.focus();
  }, [done]);
  return (
    <>
      <ProblemNotice problem={problem} />
      <div ref={report} role="status" tabIndex={-1}>
        {done && <div class="notice notice-success">{done}</div>}
      </div>
      {question && (
        <Confirm
          title={question.title}
          action={question.action}
          onCancel={() => tasks.ask(null)}
          onConfirm={() => {
            tasks.ask(null);
            void tasks.run(question);
          }}
        >
          {question.text}
        </Confirm>
      )}
    </>
  );
}
