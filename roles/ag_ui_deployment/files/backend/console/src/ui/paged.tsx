import type { ComponentChildren } from "preact";
import { formatNumber } from "../lib/format";
import type { Pages } from "../lib/hooks";
import { Button, ProblemNotice, Spinner } from "./parts";

interface Props<T> {
  pages: Pages<T>;
  /** One and several of the items, such as `account` and `accounts`. */
  noun: string;
  plural: string;
  /** What stands in the place of an empty list. */
  empty: ComponentChildren;
  children: (items: readonly T[]) => ComponentChildren;
}

/** A list that is loaded page by page: its states, its length for screen readers, and the button for more. */
export function Paged<T>({ pages, noun, plural, empty, children }: Props<T>) {
  const { items, hasMore, more } = pages;
  return (
    <>
      <ProblemNotice problem={pages.problem} retry={() => void pages.reload()} />
      {items === null && pages.loading && <Spinner label={`Loading ${plural}`} />}
      <p class="faint" role="status">
        {items && items.length > 0 && `${formatNumber(items.length)}${hasMore ? " or more" : ""} ${items.length === 1 && !hasMore ? noun : plural}`}
      </p>
      {items && (items.length === 0 ? <div class="empty">{empty}</div> : children(items))}
      <ProblemNotice problem={more.problem} />
      {hasMore && (
        <div class="buttons">
          <Button busy={more.busy} onClick={pages.loadMore}>
            Show more {plural}
          </Button>
        </div>
      )}
    </>
  );
}
