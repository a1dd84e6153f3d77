/** A tus server behind XMLHttpRequest, whose transfers a test moves on, cuts and refuses. */

type Headers = Readonly<Record<string, string>>;

export class TusServer {
  /** `POST /api/uploads` and so on, in the order of their arrival. */
  readonly requests: { readonly line: string; readonly headers: Headers }[] = [];
  /** By the path of the upload. */
  readonly uploads = new Map<string, { offset: number; length: number; metadata: string }>();
  /** Answers a request in place of the server. */
  refuse: ((line: string) => { status: number; body: string; headers?: Headers } | null) | null = null;
  #transfer: FakeXhr | null = null;

  /** What takes the place of XMLHttpRequest. */
  get XMLHttpRequest(): new () => object {
    const server = this;
    return class extends FakeXhr {
      constructor() {
        super(server);
      }
    };
  }

  get transfer(): FakeXhr | null {
    return this.#transfer;
  }

  receive(xhr: FakeXhr): void {
    const { method, path, headers } = xhr;
    const line = `${method} ${path}`;
    this.requests.push({ line, headers });
    const refused = this.refuse?.(line);
    if (refused) return xhr.answer(refused.status, refused.headers ?? {}, refused.body);
    if (method === "POST") {
      const created = `/api/uploads/up-${this.uploads.size + 1}`;
      this.uploads.set(created, { offset: 0, length: Number(headers["Upload-Length"]), metadata: headers["Upload-Metadata"] ?? "" });
      return xhr.answer(201, { location: created });
    }
    const upload = this.uploads.get(path);
    if (!upload) return xhr.answer(404, {}, '{"type":"urn:shield-ag-ui:problem:upload-not-found","title":"No such upload"}');
    if (method === "HEAD") return xhr.answer(200, { "upload-offset": String(upload.offset), "upload-length": String(upload.length) });
    if (method === "DELETE") {
      this.uploads.delete(path);
      return xhr.answer(204);
    }
    this.#transfer = xhr;
  }

  /** Lets so many bytes of the present transfer arrive; the last ones complete it. */
  move(bytes: number): void {
    const xhr = this.#transfer!;
    const upload = this.uploads.get(xhr.path)!;
    upload.offset += bytes;
    xhr.progress(bytes);
    if (upload.offset < upload.length) return;
    this.#transfer = null;
    xhr.answer(204, { "upload-offset": String(upload.offset) });
  }

  cut(): void {
    const xhr = this.#transfer!;
    this.#transfer = null;
    xhr.fail();
  }
}

/** What tus-js-client uses of an XMLHttpRequest. */
class FakeXhr {
  method = "";
  path = "";
  headers: Record<string, string> = {};
  status = 0;
  responseText = "";
  isAborted = false;
  onload: (() => void) | null = null;
  onerror: ((error: Error) => void) | null = null;
  readonly upload: { onprogress: ((event: { lengthComputable: boolean; loaded: number }) => void) | null } = { onprogress: null };
  #sent = 0;
  #answered: Headers = {};

  constructor(readonly server: TusServer) {}

  open(method: string, address: string): void {
    this.method = method;
    this.path = new URL(address, "http://shield.test").pathname;
  }

  setRequestHeader(name: string, value: string): void {
    this.headers[name] = value;
  }

  send(): void {
    queueMicrotask(() => this.isAborted || this.server.receive(this));
  }

  abort(): void {
    this.isAborted = true;
  }

  getResponseHeader(name: string): string | null {
    return this.#answered[name.toLowerCase()] ?? null;
  }

  progress(bytes: number): void {
    this.#sent += bytes;
    this.upload.onprogress?.({ lengthComputable: true, loaded: this.#sent });
  }

  answer(status: number, headers: Headers = {}, body = ""): void {
    this.status = status;
    this.#answered = headers;
    this.responseText = body;
    if (!this.isAborted) this.onload?.();
  }

  fail(): void {
    if (!this.isAborted) this.onerror?.(new Error("network error"));
  }
}
