/**
 * Client of an S3 engine. Bun's S3Client signs requests and `fetch` sends them. This file adds
 * deadlines, retries and error messages, because Bun's client has none for single requests. Bun's
 * client also drops headers such as If-None-Match.
 */
import { defined } from "../../common/defined.ts";
import { FramesError, systemCode } from "../../errors.ts";
import type { CredentialCache } from "./credentials/credential-cache.ts";
import type { Credentials } from "./credentials/credentials.ts";
import { readAtMost } from "./response-body.ts";
import {
  errorSentences,
  reasonOf,
  refusalSentences,
  sentenceOf,
  transientCodes,
  TransientError,
} from "./s3-errors.ts";

/** Address of a bucket, and the credentials for it. */
export interface BucketLocation {
  readonly bucket: string;
  /** Begins the key of every object. Has no slash at either end; may be empty. */
  readonly prefix: string;
  /** Address of the engine. Default: Amazon S3 in the region. */
  readonly endpoint?: string | undefined;
  readonly region: string;
  readonly credentials: CredentialCache;
}

/** Timeouts of a client, in milliseconds. */
export interface S3Timeouts {
  /** Time for one request, in addition to the time for its bytes. */
  readonly requestMs: number;
  /** Time after which a request is not retried. */
  readonly retryMs: number;
}

/** An object in a listing. */
export interface ListedObject {
  /** Path below the prefix. */
  readonly key: string;
  readonly size: number;
  readonly etag: string;
}

/** Result of an upload. `taken` if its condition failed. */
export type UploadResult =
  | { readonly outcome: "stored"; readonly etag: string }
  | {
      readonly outcome: "taken";
      /** Whether an earlier attempt of this upload may have created the object. */
      readonly isOwn: boolean;
    };

/** Content type, condition and body of an upload. */
export interface UploadOptions {
  readonly type?: string;
  /**
   * `new`: only if no such object exists. An ETag: only in place of that version. Default: always.
   */
  readonly condition?: "new" | { readonly etag: string };
  /** Body that is sent while the frame arrives. Such an upload cannot be retried. */
  readonly stream?: { readonly size: number; readonly body: ReadableStream<Uint8Array> };
  readonly signal?: AbortSignal;
}

/** Headers, body and abort signal of a request. */
interface S3Request {
  readonly headers?: Record<string, string>;
  readonly body?: Uint8Array<ArrayBuffer> | ReadableStream<Uint8Array>;
  readonly signal?: AbortSignal | undefined;
}

const defaultTimeouts: S3Timeouts = { requestMs: 5000, retryMs: 9000 };

/** Slowest expected transfer, in bytes per millisecond: 1 MB/s. */
const minBytesPerMs = 1000;

/** Smaller requests share a deadline if they start within this many milliseconds. */
const smallRequestBytes = 500_000;
const sharedDeadlineMs = 200;

/** First and longest pause between retries, in milliseconds. Pauses double. */
const retryPauseMs = { first: 100, max: 2000 } as const;

const secureEndpoint = /^https:|^http:\/\/(?:127(?:\.\d+){3}|localhost|\[::1\])(?::\d+)?$/i;

/** Assumed size of an object of unknown size, in bytes. It sets the deadline of the request. */
const defaultObjectBytes = 64 << 20;

/** Longest key that S3 allows, in bytes. */
export const maxKeyBytes = 1024;

export class S3 {
  /** `s3://BUCKET/PREFIX`, for messages. */
  readonly location: string;
  /**
   * Whether bytes cannot change in transit unnoticed: the connection uses TLS or stays on this
   * machine.
   */
  readonly isSecureTransport: boolean;
  /** Client with the newest credentials. */
  #client: Bun.S3Client;
  #clientCredentials: Credentials;
  readonly #bucketLocation: BucketLocation;
  readonly #timeouts: S3Timeouts;
  readonly #closing = new AbortController();
  #sharedDeadline: { since: number; signal: AbortSignal } | undefined;
  /** Radosgw before version 18 expects the ETag of If-Match without quotes. */
  #sendsBareEtag = false;

  private constructor(
    bucketLocation: BucketLocation,
    credentials: Credentials,
    timeouts: S3Timeouts,
  ) {
    const { bucket, prefix, endpoint } = bucketLocation;
    this.location = `s3://${bucket}${prefix === "" ? "" : `/${prefix}`}`;
    this.isSecureTransport = endpoint === undefined || secureEndpoint.test(endpoint);
    this.#bucketLocation = bucketLocation;
    this.#timeouts = timeouts;
    this.#client = createClient(bucketLocation, credentials);
    this.#clientCredentials = credentials;
  }

  /**
   * Returns the client of a bucket. Sends no request to the engine yet.
   *
   * @throws {FramesError} `usage` or `store` if there are no credentials
   */
  static async open(location: BucketLocation, timeouts = defaultTimeouts): Promise<S3> {
    return new S3(location, await location.credentials.get(), timeouts);
  }

  /** Returns the client that signs the next request. */
  async #currentClient(): Promise<Bun.S3Client> {
    const credentials = await this.#bucketLocation.credentials.get();
    if (credentials !== this.#clientCredentials) {
      this.#client = createClient(this.#bucketLocation, credentials);
      this.#clientCredentials = credentials;
    }
    return this.#client;
  }

  /** Returns the length of the key of `path`, in bytes. */
  keyByteLength(path: string): number {
    return new TextEncoder().encode(this.#key(path)).length;
  }

  #key(path: string): string {
    return this.#bucketLocation.prefix === "" ? path : `${this.#bucketLocation.prefix}/${path}`;
  }

  /**
   * Stores an object.
   *
   * @throws {FramesError} `store` if it is not known to be stored
   */
  async put(path: string, bytes: Uint8Array, options: UploadOptions = {}): Promise<UploadResult> {
    const { type = "application/octet-stream", condition, stream, signal } = options;
    const size = stream?.size ?? bytes.length;
    let attempts = 0;
    const send = async (): Promise<UploadResult> => {
      const headers: Record<string, string> = { "Content-Type": type };
      if (condition === "new") headers["If-None-Match"] = "*";
      else if (condition !== undefined) headers["If-Match"] = this.#ifMatchValue(condition.etag);
      if (stream !== undefined) headers["Content-Length"] = String(size);
      attempts++;
      const body = stream?.body ?? (bytes as Uint8Array<ArrayBuffer>);
      // For a streamed body the caller passes a signal and detects stalls itself.
      const response = await this.#fetch("PUT", path, { headers, body, signal }, size);
      if (response.status === 412) {
        await response.body?.cancel();
        return { outcome: "taken", isOwn: attempts > 1 };
      }
      await this.#checkStatus(response, "write", path);
      await response.body?.cancel();
      const etag = unquoteEtag(response.headers.get("etag") ?? "");
      if (etag === "") throw this.#failure("write", path, "its answer has no ETag");
      return { outcome: "stored", etag };
    };
    const result = await this.#withRetries("write", path, send, stream !== undefined);
    if (
      result.outcome === "stored" ||
      condition === undefined ||
      condition === "new" ||
      stream !== undefined
    ) {
      return result;
    }
    return this.#retryWithBareEtag(path, condition.etag, result, () =>
      this.#withRetries("write", path, send),
    );
  }

  /**
   * Retries with an unquoted ETag if the object still has the ETag that was to be replaced. Its
   * engine then expects If-Match without quotes.
   */
  async #retryWithBareEtag(
    path: string,
    etag: string,
    result: UploadResult,
    retry: () => Promise<UploadResult>,
  ) {
    if (this.#sendsBareEtag || (await this.head(path))?.etag !== etag) return result;
    this.#sendsBareEtag = true;
    return retry();
  }

  #ifMatchValue(etag: string): string {
    return this.#sendsBareEtag ? etag : `"${etag}"`;
  }

  /**
   * Returns the response with an object's bytes, or undefined if the object does not exist.
   *
   * @param size expected bytes, which set the deadline for reading
   * @throws {FramesError} `store`
   */
  async get(path: string, size = defaultObjectBytes): Promise<Response | undefined> {
    return this.#read(path, size, async (response) => response);
  }

  async #read<T>(path: string, size: number, use: (response: Response) => Promise<T>) {
    return this.#withRetries("read", path, async () => {
      const response = await this.#fetch("GET", path, {}, size);
      if (response.status === 404 && !(await this.#isBucketMissing(response))) return undefined;
      await this.#checkStatus(response, "read", path);
      return await use(response);
    });
  }

  /** Returns a blob that is read on demand. */
  blob(path: string): Blob {
    return this.#client.file(this.#key(path));
  }

  /**
   * Returns all bytes of a small object, or undefined if it does not exist.
   *
   * @throws {FramesError} `store`, also if it has more than `maxBytes`
   */
  async bytes(path: string, maxBytes: number): Promise<Uint8Array | undefined> {
    return this.#read(path, defaultObjectBytes, async (response) => {
      const declaredBytes = Number(response.headers.get("content-length"));
      const bytes = await readAtMost(response.body, maxBytes, declaredBytes);
      if (bytes !== undefined) return bytes;
      throw this.#failure("read", path, `it has more than ${maxBytes} bytes`);
    });
  }

  /**
   * Returns size and ETag of an object, or undefined if it does not exist.
   *
   * @throws {FramesError} `store`
   */
  async head(path: string): Promise<Omit<ListedObject, "key"> | undefined> {
    return this.#withRetries("read", path, async () => {
      const response = await this.#fetch("HEAD", path, {}, 0);
      if (response.status === 404) return undefined;
      await this.#checkStatus(response, "read", path);
      const size = Number(response.headers.get("content-length"));
      return { size, etag: unquoteEtag(response.headers.get("etag") ?? "") };
    });
  }

  /**
   * Removes an object. Succeeds if it does not exist.
   *
   * @throws {FramesError} `store`
   */
  async remove(path: string): Promise<void> {
    await this.#withRetries("remove", path, async () => {
      const response = await this.#fetch("DELETE", path, {}, 0);
      if (response.status !== 404) await this.#checkStatus(response, "remove", path);
      await response.body?.cancel();
    });
  }

  /**
   * Yields objects whose paths have this prefix, sorted by key, in pages of at most 1,000.
   *
   * @throws {FramesError} `store`
   */
  async *list(pathPrefix: string): AsyncGenerator<ListedObject[], void> {
    let continuationToken: string | undefined;
    do {
      const page = await this.#withRetries("list", pathPrefix, () =>
        this.#page(pathPrefix, continuationToken),
      );
      const prefixLength = this.#key("").length;
      yield (page.contents ?? []).map(({ key, size = 0, eTag = "" }) => {
        return { key: key.slice(prefixLength), size, etag: unquoteEtag(eTag) };
      });
      continuationToken = page.isTruncated === true ? page.nextContinuationToken : undefined;
    } while (continuationToken !== undefined);
  }

  /** Requests one page of a listing with a deadline, because Bun's `list` has none. */
  async #page(pathPrefix: string, continuationToken: string | undefined) {
    let timer: Timer | undefined;
    const timeout = new Promise<never>((_, reject) => {
      const { requestMs } = this.#timeouts;
      timer = setTimeout(() => reject(new DOMException("", "TimeoutError")), requestMs);
    });
    try {
      const prefix = this.#key(pathPrefix);
      const options = continuationToken === undefined ? { prefix } : { prefix, continuationToken };
      const client = await this.#currentClient();
      return await Promise.race([client.list(options), timeout]);
    } catch (error) {
      const code = systemCode(error) ?? "";
      if (!errorSentences.has(code)) throw error;
      await this.#replaceRefused(code);
      throw this.#failure("list", pathPrefix, this.#sentence(code));
    } finally {
      clearTimeout(timer);
    }
  }

  /** Aborts all requests in progress. */
  close(): void {
    this.#closing.abort();
  }

  async #fetch(
    method: "GET" | "HEAD" | "PUT" | "DELETE",
    path: string,
    request: S3Request,
    size: number,
  ): Promise<Response> {
    const client = await this.#currentClient();
    const url = client.presign(this.#key(path), { method, expiresIn: 3600 });
    const { signal, ...rest } = request;
    return fetch(url, {
      ...rest,
      method,
      signal: signal ?? this.#deadlineSignal(size),
      redirect: "manual",
    });
  }

  /**
   * Returns a signal that aborts a request at its deadline, or when the client is closed. Small
   * requests that start together share one signal.
   */
  #deadlineSignal(size: number): AbortSignal {
    const { requestMs } = this.#timeouts;
    if (size > smallRequestBytes) return this.#timeoutSignal(requestMs + size / minBytesPerMs);
    const now = performance.now();
    if (this.#sharedDeadline === undefined || now - this.#sharedDeadline.since > sharedDeadlineMs) {
      const timeoutMs = requestMs + smallRequestBytes / minBytesPerMs + sharedDeadlineMs;
      this.#sharedDeadline = { since: now, signal: this.#timeoutSignal(timeoutMs) };
    }
    return this.#sharedDeadline.signal;
  }

  #timeoutSignal(timeoutMs: number): AbortSignal {
    return AbortSignal.any([this.#closing.signal, AbortSignal.timeout(timeoutMs)]);
  }

  async #isBucketMissing(response: Response): Promise<boolean> {
    return /<Code>NoSuchBucket<\/Code>/.test(await response.clone().text());
  }

  /**
   * @throws {TransientError} if a retry may succeed
   * @throws {FramesError} `store` otherwise
   */
  async #checkStatus(response: Response, verb: string, path: string): Promise<void> {
    const { status } = response;
    if (status >= 200 && status < 300) return;
    const code = /<Code>([A-Za-z0-9]{1,60})<\/Code>/.exec(await response.text())?.[1];
    if (code !== undefined) await this.#replaceRefused(code);
    const reason = code === undefined ? `its answer was HTTP ${status}` : this.#sentence(code);
    const isTransient =
      (status >= 500 && status !== 501 && status !== 507) ||
      status === 429 ||
      transientCodes.has(code ?? "");
    if (isTransient) throw new TransientError(reason);
    throw this.#failure(verb, path, reason);
  }

  /**
   * Loads other credentials if an error code of the engine says that it refused these.
   *
   * @throws {TransientError} if there are others
   */
  async #replaceRefused(code: string): Promise<void> {
    if (refusalSentences.has(code) && (await this.#bucketLocation.credentials.replace())) {
      throw new TransientError(this.#sentence(code));
    }
  }

  /** Returns the message for an error code of the engine. */
  #sentence(code: string): string {
    const sentence = sentenceOf(code);
    if (!refusalSentences.has(code)) return sentence;
    return `${sentence}; ${this.#bucketLocation.credentials.remedy(code)}`;
  }

  #failure(verb: string, path: string, reason: string): FramesError {
    const { endpoint = `Amazon S3 in ${this.#bucketLocation.region}` } = this.#bucketLocation;
    const location = path === "" ? this.location : `${this.location}/${path.slice(0, 200)}`;
    return new FramesError("store", `Cannot ${verb} ${location} at ${endpoint}: ${reason}`);
  }

  /**
   * Retries `act` on transient errors. Pauses are randomized, so that clients do not retry
   * together.
   *
   * @throws {FramesError} `store`, or `stopping` after `close`
   */
  async #withRetries<T>(
    verb: string,
    path: string,
    act: () => Promise<T>,
    isSingleAttempt = false,
  ): Promise<T> {
    const startedAt = performance.now();
    for (
      let pauseMs: number = retryPauseMs.first;
      ;
      pauseMs = Math.min(pauseMs * 2, retryPauseMs.max)
    ) {
      let reason: string;
      try {
        return await act();
      } catch (error) {
        if (error instanceof FramesError) throw error;
        if (this.#closing.signal.aborted) throw new FramesError("stopping");
        reason = reasonOf(error);
      }
      const delayMs = pauseMs * (0.5 + Math.random());
      if (isSingleAttempt || performance.now() - startedAt + delayMs > this.#timeouts.retryMs) {
        throw this.#failure(verb, path, reason);
      }
      await Bun.sleep(delayMs);
    }
  }
}

function createClient(
  { bucket, region, endpoint }: BucketLocation,
  { accessKeyId, secretAccessKey, sessionToken }: Credentials,
): Bun.S3Client {
  const options = { bucket, region, endpoint, accessKeyId, secretAccessKey, sessionToken };
  return new Bun.S3Client(defined(options));
}

/** Returns an ETag without quotes and without the mark of a weak one. */
function unquoteEtag(etag: string): string {
  return etag.replace(/^(?:W\/)?"(.*)"$/, "$1");
}
