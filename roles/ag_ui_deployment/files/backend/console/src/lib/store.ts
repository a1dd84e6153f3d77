/** A value that components and other modules observe. */

export interface Readable<T> {
  readonly value: T;
  subscribe(listener: () => void): () => void;
}

export class Store<T> implements Readable<T> {
  #value: T;
  readonly #listeners = new Set<() => void>();

  constructor(value: T) {
    this.#value = value;
  }

  get value(): T {
    return this.#value;
  }

  set(value: T): void {
    if (Object.is(value, this.#value)) return;
    this.#value = value;
    for (const listener of [...this.#listeners]) listener();
  }

  subscribe(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
}

/** Returns a function that runs `action` once in the next frame, however often it is called until then. */
export function oncePerFrame(
  action: () => void,
  request: (run: () => void) => unknown = (run) => requestAnimationFrame(run),
): () => void {
  let requested = false;
  return () => {
    if (requested) return;
    requested = true;
    request(() => {
      requested = false;
      action();
    });
  };
}
