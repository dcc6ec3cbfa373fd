/**
 * Speaks to an S3 engine: Bun's S3Client signs, `fetch` carries. Deadlines, retries with pauses and sentences
 * for what went wrong are ours, for Bun's client has none for single requests and drops headers such as
 * If-None-Match.
 */
import { FramesError, systemCode, systemSentence } from "../errors.ts";

/** Where a bucket is, and who asks. */
export interface BucketPlace {
  readonly bucket: string;
  /** Begins the key of every object, without slashes at its ends; may be empty. */
  readonly prefix: string;
  /** Address of the engine; default: Amazon's of the region. */
  readonly endpoint?: string | undefined;
  readonly region: string;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken?: string | undefined;
}

/** How patient a client is, in milliseconds. */
export interface Patience {
  /** One request may take so long, besides the time for its bytes. */
  readonly request: number;
  /** No request is tried again after so long. */
  readonly tries: number;
}

/** An object in a listing. */
export interface ListedObject {
  /** Below the prefix. */
  readonly key: string;
  readonly size: number;
  readonly etag: string;
}

/** What an upload came to: `taken` if its condition did not hold. */
export type Upload =
  | { readonly outcome: "stored"; readonly etag: string }
  | {
      readonly outcome: "taken";
      /** Whether an earlier try may have been the cause. */ readonly isOwn: boolean;
    };

/** What is to be uploaded, and when. */
export interface UploadOptions {
  readonly type?: string;
  /** `new`: only if there is no such object; an ETag: only in its place. Default: in any case. */
  readonly only?: "new" | { readonly etag: string };
  /** Called once, whose body is sent as it comes; it cannot be tried again. */
  readonly stream?: { readonly size: number; readonly body: ReadableStream<Uint8Array> };
  readonly signal?: AbortSignal;
}

/** What is sent with a request. */
interface Sent {
  readonly headers?: Record<string, string>;
  readonly body?: Uint8Array<ArrayBuffer> | ReadableStream<Uint8Array>;
  readonly signal?: AbortSignal | undefined;
}

const usualPatience: Patience = { request: 5000, tries: 9000 };

/** Bytes a millisecond that a link has at least: 1 MB/s. */
const slowest = 1000;

/** Requests with fewer bytes that begin within so many milliseconds share a deadline. */
const smallSize = 500_000;
const sharedFor = 200;

/** Pauses between tries begin with so many milliseconds, double, and end there. */
const pauses = { first: 100, most: 2000 } as const;

const safeWay = /^https:|^http:\/\/(?:127(?:\.\d+){3}|localhost|\[::1\])(?::\d+)?$/i;

/** An object whose size is not known is hardly larger: so many bytes are waited for. */
const usualSize = 64 << 20;

/** S3 keys have at most so many bytes. */
export const longestKey = 1024;

export class S3 {
  /** `s3://BUCKET/PREFIX`, for people. */
  readonly place: string;
  /** Whether bytes cannot be changed on their way unseen: it is encrypted, or leads to no other machine. */
  readonly isSafeWay: boolean;
  readonly #client: Bun.S3Client;
  readonly #given: BucketPlace;
  readonly #patience: Patience;
  readonly #closed = new AbortController();
  #shared: { since: number; signal: AbortSignal } | undefined;
  /** Radosgw before version 18 wants the ETag of If-Match without its quotes. */
  #wantsBareEtag = false;

  constructor(given: BucketPlace, patience: Patience = usualPatience) {
    const { bucket, prefix, endpoint, region, accessKeyId, secretAccessKey, sessionToken } = given;
    this.place = `s3://${bucket}${prefix === "" ? "" : `/${prefix}`}`;
    this.isSafeWay = endpoint === undefined || safeWay.test(endpoint);
    this.#given = given;
    this.#patience = patience;
    this.#client = new Bun.S3Client({
      bucket,
      region,
      accessKeyId,
      secretAccessKey,
      ...(endpoint === undefined ? {} : { endpoint }),
      ...(sessionToken === undefined ? {} : { sessionToken }),
    });
  }

  /** Bytes that the key of an object at `path` has. */
  keyBytes(path: string): number {
    return new TextEncoder().encode(this.#key(path)).length;
  }

  #key(path: string): string {
    return this.#given.prefix === "" ? path : `${this.#given.prefix}/${path}`;
  }

  /**
   * Stores an object.
   *
   * @throws {FramesError} `store` if it is not known to be there
   */
  async put(path: string, bytes: Uint8Array, options: UploadOptions = {}): Promise<Upload> {
    const { type = "application/octet-stream", only, stream, signal } = options;
    const size = stream?.size ?? bytes.length;
    let tries = 0;
    const send = async (): Promise<Upload> => {
      const headers: Record<string, string> = { "Content-Type": type };
      if (only === "new") headers["If-None-Match"] = "*";
      else if (only !== undefined) headers["If-Match"] = this.#condition(only.etag);
      if (stream !== undefined) headers["Content-Length"] = String(size);
      tries++;
      const body = stream?.body ?? (bytes as Uint8Array<ArrayBuffer>);
      // What comes as it is captured is watched by whoever sends it.
      const response = await this.#fetch("PUT", path, { headers, body, signal }, size);
      if (response.status === 412) {
        await response.body?.cancel();
        return { outcome: "taken", isOwn: tries > 1 };
      }
      await this.#expectGood(response, `write ${path}`);
      await response.body?.cancel();
      const etag = bare(response.headers.get("etag") ?? "");
      if (etag === "") throw this.#failure("write", path, "its answer has no ETag");
      return { outcome: "stored", etag };
    };
    const sent = await this.#patiently(`write ${path}`, send, stream !== undefined);
    if (sent.outcome === "stored" || only === undefined || only === "new" || stream !== undefined) {
      return sent;
    }
    return this.#replaceBare(path, only.etag, sent, () => this.#patiently(`write ${path}`, send));
  }

  /** If the object is what was to be replaced all the same, the engine reads If-Match in the other way. */
  async #replaceBare(path: string, etag: string, sent: Upload, again: () => Promise<Upload>) {
    if (this.#wantsBareEtag || (await this.head(path))?.etag !== etag) return sent;
    this.#wantsBareEtag = true;
    return again();
  }

  #condition(etag: string): string {
    return this.#wantsBareEtag ? etag : `"${etag}"`;
  }

  /**
   * The answer with an object's bytes, or nothing if there is no such object.
   *
   * @param size of it, which decides how long reading it may take
   * @throws {FramesError} `store`
   */
  async get(path: string, size = usualSize): Promise<Response | undefined> {
    return this.#patiently(`read ${path}`, async () => {
      const response = await this.#fetch("GET", path, {}, size);
      if (response.status === 404 && !(await this.#isBucketGone(response))) return undefined;
      await this.#expectGood(response, `read ${path}`);
      return response;
    });
  }

  /** An object, read when it is asked for its bytes. */
  blob(path: string): Blob {
    return this.#client.file(this.#key(path));
  }

  /** All bytes of an object that is not large. */
  async bytes(path: string): Promise<Uint8Array | undefined> {
    return this.#patiently(`read ${path}`, async () => {
      const response = await this.#fetch("GET", path, {}, usualSize);
      if (response.status === 404 && !(await this.#isBucketGone(response))) return undefined;
      await this.#expectGood(response, `read ${path}`);
      return new Uint8Array(await response.arrayBuffer());
    });
  }

  /** Size and ETag of an object, or nothing if there is none. */
  async head(path: string): Promise<Omit<ListedObject, "key"> | undefined> {
    return this.#patiently(`read ${path}`, async () => {
      const response = await this.#fetch("HEAD", path, {}, 0);
      if (response.status === 404) return undefined;
      await this.#expectGood(response, `read ${path}`);
      const size = Number(response.headers.get("content-length"));
      return { size, etag: bare(response.headers.get("etag") ?? "") };
    });
  }

  /** Removes an object, if it is there. */
  async remove(path: string): Promise<void> {
    await this.#patiently(`remove ${path}`, async () => {
      const response = await this.#fetch("DELETE", path, {}, 0);
      if (response.status !== 404) await this.#expectGood(response, `remove ${path}`);
      await response.body?.cancel();
    });
  }

  /** The objects whose paths begin so, in the order of their keys, a thousand at a time. */
  async *list(below: string): AsyncGenerator<ListedObject[], void> {
    let continuationToken: string | undefined;
    do {
      const page = await this.#patiently(`list ${below}`, () =>
        this.#page(below, continuationToken),
      );
      const cut = this.#key("").length;
      yield (page.contents ?? []).map(({ key, size = 0, eTag = "" }) => {
        return { key: key.slice(cut), size, etag: bare(eTag) };
      });
      continuationToken = page.isTruncated === true ? page.nextContinuationToken : undefined;
    } while (continuationToken !== undefined);
  }

  /** Bun's own call has no deadline. */
  async #page(below: string, continuationToken: string | undefined) {
    let timer: Timer | undefined;
    const late = new Promise<never>((_, reject) => {
      const { request } = this.#patience;
      timer = setTimeout(() => reject(new DOMException("", "TimeoutError")), request);
    });
    try {
      const prefix = this.#key(below);
      const options = continuationToken === undefined ? { prefix } : { prefix, continuationToken };
      return await Promise.race([this.#client.list(options), late]);
    } catch (error) {
      throw refusals[systemCode(error) ?? ""] === undefined
        ? error
        : this.#failure("list", below, sentenceOf(systemCode(error)!));
    } finally {
      clearTimeout(timer);
    }
  }

  /** Ends what is under way. */
  close(): void {
    this.#closed.abort();
  }

  #fetch(
    method: "GET" | "HEAD" | "PUT" | "DELETE",
    path: string,
    given: Sent,
    size: number,
  ): Promise<Response> {
    const url = this.#client.presign(this.#key(path), { method, expiresIn: 3600 });
    const { signal, ...rest } = given;
    return fetch(url, {
      ...rest,
      method,
      signal: signal ?? this.#deadline(size),
      redirect: "manual",
    });
  }

  /** Ends a request with so many bytes in time, and all when this is closed; small ones that begin together, together. */
  #deadline(size: number): AbortSignal {
    const { request } = this.#patience;
    if (size > smallSize) return this.#after(request + size / slowest);
    const now = performance.now();
    if (this.#shared === undefined || now - this.#shared.since > sharedFor) {
      const within = request + smallSize / slowest + sharedFor;
      this.#shared = { since: now, signal: this.#after(within) };
    }
    return this.#shared.signal;
  }

  #after(milliseconds: number): AbortSignal {
    return AbortSignal.any([this.#closed.signal, AbortSignal.timeout(milliseconds)]);
  }

  async #isBucketGone(response: Response): Promise<boolean> {
    return /<Code>NoSuchBucket<\/Code>/.test(await response.clone().text());
  }

  /** @throws what `#patiently` takes for passing or not */
  async #expectGood(response: Response, what: string): Promise<void> {
    const { status } = response;
    if (status >= 200 && status < 300) return;
    const code = /<Code>([A-Za-z0-9]{1,60})<\/Code>/.exec(await response.text())?.[1];
    const said = code === undefined ? `its answer was HTTP ${status}` : sentenceOf(code);
    const isPassing =
      (status >= 500 && status !== 501 && status !== 507) ||
      status === 429 ||
      passing.has(code ?? "");
    if (isPassing) throw new PassingFault(said);
    const [act, ...path] = what.split(" ");
    throw this.#failure(act!, path.join(" "), said);
  }

  #failure(act: string, path: string, said: string): FramesError {
    const { endpoint = `Amazon S3 in ${this.#given.region}` } = this.#given;
    const where = path === "" ? this.place : `${this.place}/${path.slice(0, 200)}`;
    return new FramesError("store", `Cannot ${act} ${where} at ${endpoint}: ${said}`);
  }

  /** Tries again what may pass, after pauses that differ from one client to the next. */
  async #patiently<T>(what: string, act: () => Promise<T>, isOnce = false): Promise<T> {
    const began = performance.now();
    for (let pause: number = pauses.first; ; pause = Math.min(pause * 2, pauses.most)) {
      let said: string;
      try {
        return await act();
      } catch (error) {
        if (error instanceof FramesError) throw error;
        if (this.#closed.signal.aborted) throw new FramesError("stopping");
        said = reasonOf(error);
      }
      const wait = pause * (0.5 + Math.random());
      if (isOnce || performance.now() - began + wait > this.#patience.tries) {
        const [act, ...path] = what.split(" ");
        throw this.#failure(act!, path.join(" "), said);
      }
      await Bun.sleep(wait);
    }
  }
}

/** What another try may not meet. */
class PassingFault extends Error {}

function reasonOf(error: unknown): string {
  if (error instanceof PassingFault) return error.message;
  if (error instanceof DOMException || (error instanceof Error && error.name === "TimeoutError")) {
    return "it gave no answer in time";
  }
  const code = systemCode(error);
  return code === undefined ? systemSentence(error) : sentenceOf(code, systemSentence(error));
}

/** An ETag without its quotes. */
function bare(etag: string): string {
  return etag.replace(/^(?:W\/)?"(.*)"$/, "$1");
}

/** Codes that go away by themselves. */
const passing = new Set(["RequestTimeout", "SlowDown", "InternalError", "ServiceUnavailable"]);

/** What engines say, for people. */
const refusals: Record<string, string> = {
  NoSuchBucket: "there is no such bucket: make it first",
  InvalidAccessKeyId: "the access key is not known there: check AWS_ACCESS_KEY_ID",
  SignatureDoesNotMatch: "the secret key is wrong: check AWS_SECRET_ACCESS_KEY",
  AccessDenied: "the key may not do that: it needs to get, put, delete and list objects",
  ExpiredToken: "the session token has expired: set AWS_SESSION_TOKEN anew",
  InvalidToken: "the session token is wrong: check AWS_SESSION_TOKEN",
  QuotaExceeded: "the bucket is full",
  EntityTooLarge: "the engine takes no object so large",
  RequestTimeTooSkewed: "the clocks differ: set the one of this machine",
  PermanentRedirect: "the bucket is in another region: set AWS_REGION",
  AuthorizationHeaderMalformed: "the bucket is in another region: set AWS_REGION",
  InvalidBucketName: "the bucket cannot have that name",
  NotImplemented: "the engine cannot do that",
  ConnectionRefused: "connection refused",
  ERR_HTTP_CONTENT_LENGTH_MISMATCH: "the frame ended too early",
};

function sentenceOf(code: string, otherwise = code): string {
  const known = refusals[code];
  if (known === undefined) return otherwise;
  return /^E|^Connection/.test(code) && !known.includes("token") ? known : `${known} (${code})`;
}
