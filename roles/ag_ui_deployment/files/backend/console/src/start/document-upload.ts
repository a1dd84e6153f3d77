/** The upload of a document by tus, which goes on where it was after an interruption or a pause. */

import type { DetailedError, Upload, UploadOptions } from "tus-js-client";
import { answerOf, api } from "../api/client";
import { ApiError, type Problem, problemOf, readProblem, UNREACHABLE } from "../api/problem";
import { Store } from "../lib/store";
import { parseJson } from "../lib/untrusted";

const ENDPOINT = "/api/uploads";
/** So many milliseconds after a failure it tries again; after the last one it is up to the user. */
const RETRY_DELAYS = [500, 1_000, 3_000, 5_000, 10_000, 20_000];
/** No answer, a pause that was too long, another offset, and a transfer that still holds the upload. */
const RETRIED = new Set([0, 408, 409, 423]);

interface Progress {
  readonly name: string;
  readonly sent: number;
  readonly size: number;
}

export type UploadState =
  | { readonly kind: "none" }
  | (Progress & { readonly kind: "sending" | "paused" })
  | (Progress & { readonly kind: "failed"; readonly problem: Problem })
  | (Progress & { readonly kind: "complete"; readonly id: string });

export class DocumentUpload {
  readonly state = new Store<UploadState>({ kind: "none" });
  readonly #workspace: string;
  #upload: Upload | null = null;

  constructor(workspace: string) {
    this.#workspace = workspace;
  }

  /** Sends a file. If a part of it was sent before, also before the page was loaded anew, the rest follows. */
  async start(file: File): Promise<void> {
    this.#upload = null;
    const { name, size } = file;
    this.state.set({ kind: "sending", name, sent: 0, size });
    try {
      const tus = await import("tus-js-client");
      const upload: Upload = new tus.Upload(file, this.#options(file, () => upload));
      this.#upload = upload;
      const [previous] = await upload.findPreviousUploads();
      if (previous) upload.resumeFromPreviousUpload(previous);
      if (this.#upload === upload && this.state.value.kind === "sending") upload.start();
    } catch (error) {
      this.state.set({ kind: "failed", name, sent: 0, size, problem: problemOf(error) });
    }
  }

  pause(): void {
    const state = this.state.value;
    if (state.kind !== "sending") return;
    this.state.set({ ...state, kind: "paused" });
    void this.#upload?.abort();
  }

  /** Goes on after a pause or a failure. */
  resume(): void {
    const state = this.state.value;
    if (state.kind !== "paused" && state.kind !== "failed") return;
    const { name, sent, size } = state;
    this.state.set({ kind: "sending", name, sent, size });
    this.#upload?.start();
  }

  /** Stops, and deletes what the server has. */
  async cancel(): Promise<void> {
    const upload = this.#upload;
    this.#upload = null;
    this.state.set({ kind: "none" });
    // What cannot be deleted expires.
    await upload?.abort(true).catch(() => undefined);
  }

  #options(file: File, upload: () => Upload): UploadOptions {
    const { name, size } = file;
    const isCurrent = (): boolean => this.#upload === upload();
    return {
      endpoint: ENDPOINT,
      metadata: { filename: name, workspace: this.#workspace },
      retryDelays: RETRY_DELAYS,
      onShouldRetry: (error) => {
        const { status } = uploadProblem(error);
        return RETRIED.has(status) || status >= 500;
      },
      removeFingerprintOnSuccess: true,
      // What identifies a file: an upload belongs to its workspace.
      fingerprint: () => Promise.resolve(["shield", this.#workspace, name, file.type, size, file.lastModified].join("/")),
      // XMLHttpRequest does not renew an expired session.
      onBeforeRequest: async () => void (await answerOf(api.GET("/auth/me"))),
      onProgress: (sent) => {
        if (isCurrent() && this.state.value.kind === "sending") this.state.set({ kind: "sending", name, sent, size });
      },
      onError: (error) => {
        const state = this.state.value;
        if (isCurrent() && state.kind === "sending") this.state.set({ ...state, kind: "failed", problem: uploadProblem(error) });
      },
      onSuccess: () => {
        const id = upload().url?.split("/").pop();
        if (isCurrent() && id) this.state.set({ kind: "complete", name, sent: size, size, id });
      },
    };
  }
}

/** The problem document of the server, where it has sent one. */
function uploadProblem(error: Error | DetailedError): Problem {
  if (!("originalResponse" in error)) return problemOf(error);
  if (error.causingError instanceof ApiError) return error.causingError.problem;
  const response = error.originalResponse;
  if (response === null || response.getStatus() === 0) return UNREACHABLE;
  const headers = new Headers();
  for (const name of ["retry-after", "x-request-id"]) {
    const value = response.getHeader(name);
    if (value) headers.set(name, value);
  }
  return readProblem(parseJson(response.getBody()), { status: response.getStatus(), headers });
}

/** The largest document that the server accepts, in bytes; null if it accepts no uploads. */
export async function largestUpload(): Promise<number | null> {
  const { response } = await api.OPTIONS(ENDPOINT);
  if (!response.ok) return null;
  const size = Number(response.headers.get("tus-max-size"));
  return size > 0 ? size : Number.MAX_SAFE_INTEGER;
}
