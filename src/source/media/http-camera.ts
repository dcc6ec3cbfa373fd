/** Reads cameras that send MJPEG over HTTP, without ffmpeg, which refuses many of them. */
import { asFramesError, FramesError } from "../../errors.ts";
import { printable, redact } from "../../safe-text.ts";
import type { FfmpegResult, Packets } from "./ffmpeg.ts";
import { MultipartSplitter } from "./multipart.ts";
import type { VideoInfo } from "./probe.ts";

/** How to read a camera. */
export interface HttpCameraOptions {
  readonly maxFrameBytes: number;
  /** Milliseconds without data after which the camera counts as stalled. */
  readonly stallTimeoutMs: number;
  readonly signal?: AbortSignal;
}

/**
 * Returns what a camera sends, from its first JPEG. Returns `undefined` if the URL is no multipart
 * stream or cannot be read in this way.
 *
 * @param name name of the camera, for messages
 * @param timeoutMs time in which a picture must come
 * @throws {FramesError} `unreadable` or `timeout`
 */
export async function probeHttpCamera(
  url: string,
  name: string,
  timeoutMs: number,
  options: HttpCameraOptions,
): Promise<VideoInfo | undefined> {
  const limit = AbortSignal.timeout(timeoutMs);
  const signal = AbortSignal.any([
    limit,
    ...(options.signal === undefined ? [] : [options.signal]),
  ]);
  const body = await openMultipart(url, signal, options.stallTimeoutMs).catch(() => undefined);
  if (body === undefined) return undefined;
  const packets = readParts(body, { ...options, signal });
  let failure: string | undefined;
  try {
    for (;;) {
      const { done, value } = await packets.next();
      if (done) {
        failure = value.failure ?? "it ended before a frame arrived";
        break;
      }
      const video = "error" in value ? undefined : await describe(value.bytes);
      if (video !== undefined) return video;
    }
  } catch (error) {
    throw asFramesError(error, "unreadable", `Cannot read ${name}`);
  } finally {
    await packets.return(ended);
  }
  const hasTimedOut = limit.aborted || failure === stallMessage(options.stallTimeoutMs);
  const problem = limit.aborted ? `no frame arrived within ${timeoutMs / 1000} s` : failure;
  throw new FramesError(hasTimedOut ? "timeout" : "unreadable", `Cannot read ${name}: ${problem}`);
}

/** Yields the JPEGs of a camera as they arrive, until the connection ends. */
export async function* readHttpCamera(
  url: string,
  options: HttpCameraOptions & { readonly signal: AbortSignal },
): Packets {
  let body: ReadableStream<Uint8Array> | undefined;
  try {
    body = await openMultipart(url, options.signal, options.stallTimeoutMs);
  } catch (error) {
    return { ...ended, failure: failureText(error) };
  }
  if (body === undefined) return { ...ended, failure: "it no longer sends MJPEG" };
  return yield* readParts(body, options);
}

/** The cameras send no times. */
const noTime = { time: undefined, duration: 0n };

const ended: FfmpegResult = { failure: undefined, message: "", hasErrors: false };

async function* readParts(
  body: ReadableStream<Uint8Array>,
  { maxFrameBytes, stallTimeoutMs, signal }: HttpCameraOptions,
): Packets {
  const reader = body.getReader();
  const splitter = new MultipartSplitter(maxFrameBytes);
  let failure: string | undefined;
  const stop = (): void => void reader.cancel().catch(() => {});
  signal?.addEventListener("abort", stop);
  try {
    while (signal?.aborted !== true) {
      const timer = setTimeout(() => {
        failure = stallMessage(stallTimeoutMs);
        stop();
      }, stallTimeoutMs);
      const { done, value } = await reader.read().finally(() => clearTimeout(timer));
      if (done) break;
      for (const part of splitter.push(value)) {
        yield part instanceof Uint8Array ? { ...noTime, bytes: part } : { ...noTime, ...part };
      }
    }
    const last = splitter.end();
    if (last !== undefined) yield { ...noTime, bytes: last };
  } catch (error) {
    failure ??= failureText(error);
  } finally {
    signal?.removeEventListener("abort", stop);
    stop();
  }
  return { ...ended, failure };
}

/** Returns the message of an error without the credentials of the URL. */
function failureText(error: unknown): string {
  return printable(redact(error instanceof Error ? error.message : String(error)));
}

function stallMessage(stallTimeoutMs: number): string {
  return `no data arrived for ${stallTimeoutMs / 1000} s`;
}

/** Returns the properties of the video, or `undefined` if the JPEG cannot be decoded. */
async function describe(jpeg: Uint8Array): Promise<VideoInfo | undefined> {
  const size = await new Bun.Image(jpeg).metadata().catch(() => undefined);
  if (size === undefined) return undefined;
  return {
    container: "mpjpeg",
    codec: "mjpeg",
    width: size.width,
    height: size.height,
    pixelFormat: "yuvj420p",
    rate: undefined,
    timeBase: "1/1000",
    start: undefined,
    end: undefined,
    duration: undefined,
    isFinite: false,
    frameBytes: jpeg.length,
    hasReorderedPictures: false,
    extradata: new Uint8Array(0),
    createdAt: undefined,
    isOldFfmpeg: false,
  };
}

/** Requests the URL. Returns its body if that is a multipart stream. */
async function openMultipart(
  url: string,
  signal: AbortSignal,
  timeoutMs: number,
): Promise<ReadableStream<Uint8Array> | undefined> {
  const controller = new AbortController();
  const abort = (): void => controller.abort();
  const timer = setTimeout(abort, timeoutMs);
  signal.addEventListener("abort", abort);
  if (signal.aborted) abort();
  // Cameras sign their certificates themselves. ffmpeg does not check them either.
  const tls = { rejectUnauthorized: false };
  const request = { signal: controller.signal, tls };
  try {
    let response = await fetch(url, request);
    const challenge = response.headers.get("www-authenticate");
    const authorization =
      response.status === 401 && challenge !== null ? digestAnswer(url, challenge) : undefined;
    if (authorization !== undefined) {
      await response.body?.cancel();
      const plainUrl = new URL(url);
      plainUrl.username = plainUrl.password = "";
      response = await fetch(plainUrl, { ...request, headers: { authorization } });
    }
    const isMultipart = /^multipart\//i.test(response.headers.get("content-type") ?? "");
    if (response.ok && isMultipart && response.body !== null) return response.body;
    await response.body?.cancel();
    return undefined;
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", abort);
  }
}

/** Answers a challenge of HTTP digest authentication (RFC 7616) with the credentials of the URL. */
function digestAnswer(url: string, challenge: string): string | undefined {
  const { username, password, pathname, search } = new URL(url);
  const [, fields] = /\bdigest\s+(.*)/i.exec(challenge) ?? [];
  if (fields === undefined || username === "") return undefined;
  const field = (name: string): string | undefined => {
    const pattern = new RegExp(`(?:^|[,\\s])${name}=(?:"([^"]*)"|([^\\s,"]+))`, "i");
    const [, quoted, bare] = pattern.exec(fields) ?? [];
    return quoted ?? bare;
  };
  const [realm = "", nonce = "", opaque] = [field("realm"), field("nonce"), field("opaque")];
  const algorithm = field("algorithm") ?? "MD5";
  const hashName = ({ MD5: "md5", "SHA-256": "sha256" } as const)[algorithm.toUpperCase()];
  if (hashName === undefined) return undefined;
  const hash = (text: string): string => new Bun.CryptoHasher(hashName).update(text).digest("hex");
  const user = decodeURIComponent(username);
  const uri = pathname + search;
  const secret = hash(`${user}:${realm}:${decodeURIComponent(password)}`);
  const isCounted = field("qop") !== undefined;
  const clientNonce = crypto.randomUUID().replaceAll("-", "");
  const middle = isCounted ? `${nonce}:00000001:${clientNonce}:auth` : nonce;
  const response = hash(`${secret}:${middle}:${hash(`GET:${uri}`)}`);
  const quotedUser = user.replace(/["\\]/g, String.raw`\$&`);
  const answer = [
    `Digest username="${quotedUser}", realm="${realm}", nonce="${nonce}", uri="${uri}"`,
    `response="${response}", algorithm=${algorithm}`,
  ];
  if (isCounted) answer.push(`qop=auth, nc=00000001, cnonce="${clientNonce}"`);
  if (opaque !== undefined) answer.push(`opaque="${opaque}"`);
  return answer.join(", ");
}
