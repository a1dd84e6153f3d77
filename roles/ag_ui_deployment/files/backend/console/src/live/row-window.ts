/** Which rows of a long list are in the document: those that are visible, and some around them. */

export interface RowWindow {
  readonly start: number;
  readonly end: number;
  /** Pixels of the rows before and after. */
  readonly before: number;
  readonly after: number;
}

export function rowWindow(
  scrollTop: number,
  viewport: number,
  rowHeight: number,
  count: number,
  overscan = 4,
): RowWindow {
  const last = Math.max(0, count * rowHeight - viewport);
  const top = Math.min(Math.max(0, scrollTop), last);
  // Even steps: scrolling by one row does not render again.
  const first = Math.floor(top / rowHeight / 4) * 4;
  const start = Math.max(0, first - overscan);
  const end = Math.min(count, first + Math.ceil(viewport / rowHeight) + 4 + overscan);
  return { start, end, before: start * rowHeight, after: (count - end) * rowHeight };
}

/**
 * Keys of the rows in the document. A job keeps its key as long as its row is there; those that come get the
 * keys of those that have gone, since other texts in the same elements cost less than new elements.
 */
export class RowKeys {
  #keys: ReadonlyMap<string, number> = new Map();

  assign(ids: readonly string[]): readonly number[] {
    const shown = new Set(ids);
    const free = [...this.#keys].flatMap(([id, key]) => (shown.has(id) ? [] : [key]));
    let unused = Math.max(-1, ...this.#keys.values()) + 1;
    const keys = new Map<string, number>();
    for (const id of ids) keys.set(id, this.#keys.get(id) ?? free.shift() ?? unused++);
    this.#keys = keys;
    return [...keys.values()];
  }
}
