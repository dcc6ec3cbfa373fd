/** HTTP client of the page, and the JSON types of src/http/API.md. */
/// <reference lib="dom" />
import { parseNanoseconds } from "./format.ts";

/** Layout of a raw frame. */
export interface RawShapeJson {
  readonly width: number;
  readonly height: number;
  readonly format: string;
}

/** Current values of a live source. */
export interface LiveJson {
  /** Frames per second. */
  readonly rate: number;
  /** Bytes per second. */
  readonly bandwidth: number;
  /** Median delay from capture to receipt in ms. */
  readonly delay: number | null;
  /** Number and times of the newest frame. */
  readonly number: number;
  readonly captured: string;
  readonly received: string;
  readonly gaps: number;
  readonly name: string;
  readonly type: string;
  /** Whether its sender has delivered everything. */
  readonly ended: boolean;
  /** Rate, bandwidth and gaps; one entry per two seconds, oldest first. */
  readonly history?: readonly (readonly [number, number, number])[];
}

/** A source in the `state` event. */
export interface SourceStateJson extends LiveJson {
  readonly stream: string;
  readonly source: string;
  readonly frames: number;
  readonly bytes: number;
  readonly lost: number;
}

/** A source of a stored stream. */
export interface StoredSourceJson {
  readonly name: string;
  readonly frames: number;
  readonly bytes: number;
  readonly lost: number;
  readonly firstCaptured: string | null;
  readonly lastCaptured: string | null;
  readonly live: LiveJson | null;
}

export interface StreamJson {
  readonly name: string;
  readonly sources: readonly StoredSourceJson[];
  /** Sources that are left out. */
  readonly otherSources?: number;
}

/** A stored frame. */
export interface FrameJson {
  readonly stream: string;
  readonly source: string;
  readonly name: string;
  readonly number: number;
  readonly session: string;
  readonly size: number;
  readonly crc32: string;
  readonly captured: string;
  readonly received: string;
  readonly key: string | null;
  readonly metadata: unknown;
  readonly raw: RawShapeJson | null;
  /** Whether a decoder can begin with it; null if it is no encoded video. */
  readonly isKey: boolean | null;
  readonly type: string;
  readonly url: string;
  readonly cursor: string;
}

export interface GapJson {
  readonly source: string;
  readonly session: string;
  readonly first: number;
  readonly last: number;
  readonly reason: string | null;
  readonly at: string;
}

/** The next time without frames of a source, or the cursor to go on with. */
export interface PauseJson {
  readonly pause: { readonly since: string; readonly frame: FrameJson } | null;
  readonly next: string | null;
}

export interface SenderJson {
  readonly peer: string;
  readonly stream: string;
  readonly sources: readonly string[];
  readonly software: string | null;
  readonly key: string | null;
  readonly since: string;
  readonly frames: number;
  readonly bytes: number;
}

export interface ProblemJson {
  readonly time: string;
  readonly code: string;
  readonly message: string;
  readonly stream: string | null;
  readonly source: string | null;
}

export interface StoreJson {
  readonly place: string;
  readonly frames: number | string;
  readonly bytes: number | string;
  readonly free: number | string | null;
  readonly total: number | string | null;
}

/** Data of the `state` event, sent once a second. */
export interface StateJson {
  readonly time: string;
  readonly connections: number;
  /** Null if the client may not read everything. */
  readonly store: StoreJson | null;
  readonly sources: readonly SourceStateJson[];
  /** Sources that are left out. */
  readonly otherSources: number;
  readonly senders: readonly SenderJson[];
}

/** An error response. `status` is 0 if there was no response at all. */
export class ApiError extends Error {
  override readonly name = "ApiError";

  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

/** Time limit of a request. */
const requestTimeoutMs = 20_000;

/**
 * Sends requests to the server. On 401 it asks the user for the key and repeats the request.
 * Concurrent requests share one prompt.
 */
export class ApiClient {
  readonly #askForKey: () => Promise<void>;
  #pendingKey: Promise<void> | undefined;

  constructor(askForKey: () => Promise<void>) {
    this.#askForKey = askForKey;
  }

  /** @throws {ApiError} */
  async get<T>(path: string): Promise<T> {
    return (await (await this.#fetch(path)).json()) as T;
  }

  /** @throws {ApiError} */
  async post<T>(path: string, body: unknown): Promise<T> {
    const headers = { "Content-Type": "application/json" };
    const response = await this.#fetch(path, {
      method: "POST",
      headers,
      body: JSON.stringify(body),
    });
    return (await response.json()) as T;
  }

  /**
   * Fetches the bytes of a frame.
   *
   * @throws {ApiError}
   */
  async bytes(path: string): Promise<Uint8Array<ArrayBuffer>> {
    return new Uint8Array(await (await this.#fetch(path)).arrayBuffer());
  }

  /**
   * Fetches the access units of encoded video from a key frame up to a frame, one after the other.
   * `first` is the number of the key frame.
   *
   * @throws {ApiError}
   */
  async group(frame: FrameJson): Promise<{ first: number; bytes: Uint8Array<ArrayBuffer> }> {
    const response = await this.#fetch(`${frameUrl(frame)}?gop=1`);
    const first = Number(response.headers.get("X-Key-Sequence"));
    return { first, bytes: new Uint8Array(await response.arrayBuffer()) };
  }

  /**
   * Lists stored frames of a source. `query` selects the position and limit.
   *
   * @throws {ApiError}
   */
  frames(stream: string, source: string, query: string): Promise<{ frames: FrameJson[] }> {
    const path = `${streamPath(stream)}/frames?source=${encodeURIComponent(source)}&${query}`;
    return this.get(path);
  }

  /**
   * Returns each source's stored frame nearest to a time in ns since 1970.
   *
   * @throws {ApiError}
   */
  async moment(stream: string, sources: readonly string[], at: bigint): Promise<FrameJson[]> {
    const path = `${streamPath(stream)}/moment?at=${at}${sourcesQuery(sources)}`;
    return (await this.get<{ frames: FrameJson[] }>(path)).frames;
  }

  /**
   * Counts the frames of sources in equal parts of a time in ns since 1970.
   *
   * @throws {ApiError}
   */
  async density(
    stream: string,
    sources: readonly string[],
    { from, to, parts }: { readonly from: bigint; readonly to: bigint; readonly parts: number },
  ): Promise<{ name: string; counts: number[] }[]> {
    const query = `from=${from}&to=${to}&parts=${parts}${sourcesQuery(sources)}`;
    const path = `${streamPath(stream)}/density?${query}`;
    return (await this.get<{ sources: { name: string; counts: number[] }[] }>(path)).sources;
  }

  async #fetch(path: string, options: RequestInit = {}): Promise<Response> {
    for (;;) {
      let response: Response;
      try {
        response = await fetch(path, { ...options, signal: AbortSignal.timeout(requestTimeoutMs) });
      } catch {
        throw new ApiError(0, "The server does not answer");
      }
      if (response.ok) return response;
      if (response.status !== 401) throw await toApiError(response);
      this.#pendingKey ??= this.#askForKey().finally(() => (this.#pendingKey = undefined));
      await this.#pendingKey;
    }
  }
}

async function toApiError(response: Response): Promise<ApiError> {
  try {
    const { message } = (await response.json()) as { message?: unknown };
    if (typeof message === "string") return new ApiError(response.status, message);
  } catch {
    // The response is not from this server, for example from a proxy.
  }
  return new ApiError(response.status, `The server answered with ${response.status}`);
}

/** Returns the first and last capture time over several sources. */
export function captureRange(
  sources: readonly Pick<StoredSourceJson, "firstCaptured" | "lastCaptured">[],
): [bigint | undefined, bigint | undefined] {
  let [first, last]: [bigint | undefined, bigint | undefined] = [undefined, undefined];
  for (const { firstCaptured, lastCaptured } of sources) {
    const [from, to] = [parseNanoseconds(firstCaptured), parseNanoseconds(lastCaptured)];
    if (from !== undefined && (first === undefined || from < first)) first = from;
    if (to !== undefined && (last === undefined || to > last)) last = to;
  }
  return [first, last];
}

/** Returns the URL path of what the API tells of a stream. */
export function streamPath(stream: string): string {
  return `/api/streams/${encodeURIComponent(stream)}`;
}

function sourcesQuery(sources: readonly string[]): string {
  return sources.map((name) => `&source=${encodeURIComponent(name)}`).join("");
}

/** Returns the URL path of a source, percent-encoding each part. */
export function sourcePath(stream: string, source: string): string {
  const parts = source.split("/").map(encodeURIComponent).join("/");
  return `/streams/${encodeURIComponent(stream)}/sources/${parts}`;
}

/**
 * Returns the URL path of a frame.
 * Ignores the server's `url` unless it is a path of this server, so that no other host is
 * contacted.
 */
export function frameUrl({ url, stream, source, name }: FrameJson): string {
  if (url.startsWith("/streams/")) return url;
  return `${sourcePath(stream, source)}/frames/${encodeURIComponent(name)}`;
}
