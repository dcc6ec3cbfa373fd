/** Responds with a stored frame: whole or a byte range, with ETag and checksum verification. */
import { crc32 } from "../../common/checksum.ts";
import { ConcurrencyLimit } from "../../common/concurrency.ts";
import type { FrameDescription, RawShape } from "../../frame.ts";
import {
  FramesError,
  isExhausted,
  isSystemError,
  systemCode,
  systemSentence,
} from "../../errors.ts";
import { HttpError, notFound } from "../responses.ts";
import { contentDisposition, mediaType, toDecimalSeconds } from "../media-type.ts";
import type { RouteRequest } from "./request.ts";
import { idleTimeoutSeconds } from "./stream-response.ts";

/** Size limit for responses from memory. Larger frames are read while they are sent. */
const maxInMemoryBytes = 1 << 20;

/** Size limit for verifying the checksum before sending, and bytes per read. */
const maxVerifiedBytes = 64 << 20;
const readChunkBytes = 1 << 20;

/** Limits the memory for frames that are read, over all clients. */
const reads = new ConcurrencyLimit(4);

/** A frame to respond with. Its file may have been removed. */
export interface ServedFrame {
  readonly stream: string;
  readonly source: string;
  readonly frame: Pick<FrameDescription, "name" | "sequence" | "captured" | "size" | "isKey">;
  readonly crc32: number;
  readonly raw: RawShape | undefined;
}

/** Byte range of a frame: `from` inclusive, `to` exclusive. */
interface ByteRange {
  readonly from: number;
  readonly to: number;
}

/**
 * Responds with a frame or the requested byte range.
 *
 * @param cachedBytes the frame's bytes, if they are in memory already
 * @throws {FramesError} `missing` if the file was removed, `damaged` if its checksum is wrong,
 * `unreadable` if the disk cannot read it, `store` if the process has too many open files
 */
export async function frameResponse(
  req: RouteRequest,
  served: ServedFrame,
  cachedBytes?: Uint8Array<ArrayBuffer>,
): Promise<Response> {
  const { request } = req;
  const { contents } = req.context;
  const { frame } = served;
  const headers = frameHeaders(served);
  if (matchesETag(request.headers.get("If-None-Match"), headers["ETag"]!)) {
    return new Response(null, { status: 304, headers });
  }
  const byteRange = parseRange(request, frame.size, headers["ETag"]!);
  if (byteRange === undefined) {
    const message = `Cannot send this range: the frame has ${frame.size} bytes`;
    throw new HttpError(416, "usage", message, { "Content-Range": `bytes */${frame.size}` });
  }
  const isWhole = byteRange.from === 0 && byteRange.to === frame.size;
  const length = byteRange.to - byteRange.from;
  const status = isWhole ? 200 : 206;
  if (!isWhole)
    headers["Content-Range"] = `bytes ${byteRange.from}-${byteRange.to - 1}/${frame.size}`;
  const openStored = () => contents.blob({ ...served, ...frame });
  const blob = cachedBytes === undefined ? await readStored(served, openStored) : undefined;
  if (cachedBytes === undefined && blob === undefined) throw movedAwayError(served);
  if (request.method === "HEAD") {
    const headHeaders = { ...headers, "Content-Length": String(length) };
    return new Response(null, { status, headers: headHeaders });
  }
  if (cachedBytes !== undefined || frame.size <= maxInMemoryBytes) {
    const read = () => reads.run(() => blob!.bytes());
    const bytes = cachedBytes ?? (await readStored(served, read));
    if (bytes.length !== frame.size) throw movedAwayError(served);
    if (cachedBytes === undefined && crc32(bytes) !== served.crc32) throw damagedError(served);
    req.setIdleTimeout(idleTimeoutSeconds);
    return new Response(bytes.subarray(byteRange.from, byteRange.to), { status, headers });
  }
  if (isWhole && frame.size <= maxVerifiedBytes) {
    const verify = () => reads.run(() => hasStoredChecksum(blob!, served, request.signal));
    if (!(await readStored(served, verify))) throw damagedError(served);
  }
  req.setIdleTimeout(idleTimeoutSeconds);
  const body = blob!.slice(byteRange.from, byteRange.to);
  // Bun streams a local file. For an S3 file it would redirect the client to the bucket.
  if (contents.fetch === undefined) return new Response(body, { status, headers });
  headers["Content-Length"] = String(length);
  return new Response(body.stream(), { status, headers });
}

function frameHeaders({ frame, crc32: crc, raw }: ServedFrame): Record<string, string> {
  const type = mediaType(frame.name, raw);
  return {
    "Content-Type": type,
    "Content-Disposition": contentDisposition(frame.name, type),
    "X-Sequence": String(frame.sequence),
    "X-Timestamp": toDecimalSeconds(frame.captured),
    ...(frame.isKey === undefined ? {} : { "X-Key": String(frame.isKey) }),
    ETag: `"${crc.toString(16).padStart(8, "0")}-${frame.size}"`,
    "Accept-Ranges": "bytes",
    // A later frame may replace this one under the same name.
    "Cache-Control": "private, no-cache",
  };
}

function matchesETag(header: string | null, etag: string): boolean {
  if (header === null) return false;
  return header
    .split(",")
    .some((item) => item.trim() === "*" || item.trim().replace(/^W\//, "") === etag);
}

/**
 * Parses the Range header. Returns the whole frame unless there is one valid range.
 * Undefined if the range lies outside the frame.
 */
function parseRange(request: Request, size: number, etag: string): ByteRange | undefined {
  const whole = { from: 0, to: size };
  const range = request.headers.get("Range");
  const condition = request.headers.get("If-Range");
  if (range === null || (condition !== null && condition !== etag)) return whole;
  const [, first, last] = /^bytes=(\d{0,15})-(\d{0,15})$/.exec(range.trim()) ?? [];
  if (first === undefined || last === undefined || (first === "" && last === "")) return whole;
  if (first === "") {
    const count = Number(last);
    return count === 0 || size === 0 ? undefined : { from: Math.max(0, size - count), to: size };
  }
  if (last !== "" && Number(last) < Number(first)) return whole;
  const from = Number(first);
  if (from >= size) return undefined;
  return { from, to: last === "" ? size : Math.min(size, Number(last) + 1) };
}

/**
 * Runs `read` on the file or object of a frame.
 *
 * @throws {FramesError} `missing`, `unreadable` or `store`
 */
async function readStored<T>(served: ServedFrame, read: () => T | Promise<T>): Promise<T> {
  try {
    return await read();
  } catch (error) {
    const cause = error instanceof FramesError ? error.cause : error;
    // A bucket reports a missing object by an error of its own.
    if (!isSystemError(cause) || systemCode(cause) === "ENOENT") throw movedAwayError(served);
    const what = `Cannot read the file of frame ${JSON.stringify(served.frame.name)} of ${served.source}`;
    const code = isExhausted(cause) ? "store" : "unreadable";
    throw new FramesError(code, `${what}: ${systemSentence(cause)}`, { cause });
  }
}

/**
 * Returns whether the stored bytes match the checksum. Reads in chunks, until the client is gone.
 */
async function hasStoredChecksum(
  blob: Blob,
  { frame, crc32: expected }: ServedFrame,
  signal: AbortSignal,
): Promise<boolean> {
  let crc = 0;
  for (let offset = 0; offset < frame.size && !signal.aborted; offset += readChunkBytes) {
    const chunk = await blob.slice(offset, Math.min(frame.size, offset + readChunkBytes)).bytes();
    crc = crc32(chunk, crc);
  }
  return crc === expected;
}

function movedAwayError({ stream, source, frame }: ServedFrame): FramesError {
  return notFound(
    `Frame ${JSON.stringify(frame.name)} of ${source} in ${stream} was moved away or deleted from the store`,
  );
}

function damagedError({ source, frame }: ServedFrame): FramesError {
  return new FramesError(
    "damaged",
    `The file of frame ${JSON.stringify(frame.name)} of ${source} changed after it was stored; on the server run frames verify`,
  );
}
