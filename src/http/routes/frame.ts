/** A frame as an answer: whole or in part, known by its checksum, and in memory only if it is small. */
import { crc32 } from "node:zlib";
import type { FrameDescription, RawShape } from "../../frame.ts";
import { FramesError } from "../../errors.ts";
import { notFound, errorResponse } from "../responses.ts";
import type { RouteRequest } from "../request.ts";
import type { HttpContext } from "../context.ts";
import { contentDisposition, mediaType, toDecimalSeconds } from "../media-type.ts";

/** What is answered from memory; larger frames are read as they go out. */
const maxInMemoryBytes = 1 << 20;

/** Larger frames than this are not read through before they go out; bytes that are read at a time. */
const maxVerifiedBytes = 64 << 20;
const readChunkBytes = 1 << 20;

/** Whoever reads nothing of an answer for so many seconds is gone. */
const idleTimeoutSeconds = 120;

/** A frame that is there, or was. */
export interface ServedFrame {
  readonly stream: string;
  readonly source: string;
  readonly frame: Pick<FrameDescription, "name" | "sequence" | "captured" | "size">;
  readonly crc32: number;
  readonly raw: RawShape | undefined;
}

/** Part of a frame: its first byte, and the one behind its last. */
interface ByteRange {
  readonly from: number;
  readonly to: number;
}

/**
 * Answers with a frame, or with the part that is asked for.
 *
 * @param cachedBytes its bytes, if they are in memory already
 */
export async function frameResponse(
  req: RouteRequest,
  { contents }: Pick<HttpContext, "contents">,
  served: ServedFrame,
  cachedBytes?: Uint8Array<ArrayBuffer>,
): Promise<Response> {
  const { request } = req;
  const { frame } = served;
  const headers = frameHeaders(served);
  if (matchesETag(request.headers.get("If-None-Match"), headers["ETag"]!)) {
    return new Response(null, { status: 304, headers });
  }
  const byteRange = parseRange(request, frame.size, headers["ETag"]!);
  if (byteRange === undefined) {
    const range = { "Content-Range": `bytes */${frame.size}` };
    return errorResponse(416, "usage", `The frame has ${frame.size} bytes, and not those`, range);
  }
  const isWhole = byteRange.from === 0 && byteRange.to === frame.size;
  const length = byteRange.to - byteRange.from;
  const status = isWhole ? 200 : 206;
  if (!isWhole)
    headers["Content-Range"] = `bytes ${byteRange.from}-${byteRange.to - 1}/${frame.size}`;
  const blob = cachedBytes === undefined ? contents.blob({ ...served, ...frame }) : undefined;
  if (cachedBytes === undefined && blob === undefined) throw movedAwayError(served);
  if (request.method === "HEAD") {
    const headHeaders = { ...headers, "Content-Length": String(length) };
    return new Response(null, { status, headers: headHeaders });
  }
  if (cachedBytes !== undefined || frame.size <= maxInMemoryBytes) {
    const bytes = cachedBytes ?? (await blob!.bytes().catch(() => undefined));
    if (bytes === undefined || bytes.length !== frame.size) throw movedAwayError(served);
    if (cachedBytes === undefined && crc32(bytes) !== served.crc32) throw damagedError(served);
    req.setIdleTimeout(idleTimeoutSeconds);
    return new Response(bytes.subarray(byteRange.from, byteRange.to), { status, headers });
  }
  if (isWhole && frame.size <= maxVerifiedBytes && !(await hasStoredChecksum(blob!, served))) {
    throw damagedError(served);
  }
  req.setIdleTimeout(idleTimeoutSeconds);
  const body = blob!.slice(byteRange.from, byteRange.to);
  // Bun reads it as it goes out; of a bucket's it would make an answer that leads there.
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
    ETag: `"${crc.toString(16).padStart(8, "0")}-${frame.size}"`,
    "Accept-Ranges": "bytes",
    // Another frame may take the place of this one.
    "Cache-Control": "private, no-cache",
  };
}

function matchesETag(header: string | null, etag: string): boolean {
  if (header === null) return false;
  return header
    .split(",")
    .some((item) => item.trim() === "*" || item.trim().replace(/^W\//, "") === etag);
}

/** What is asked for; all of it unless that is one part that can be understood; nothing if it is not there. */
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

/** Whether a large frame is what was stored. */
async function hasStoredChecksum(
  blob: Blob,
  { frame, crc32: expected }: ServedFrame,
): Promise<boolean> {
  let crc = 0;
  for (let offset = 0; offset < frame.size; offset += readChunkBytes) {
    const chunk = await blob.slice(offset, Math.min(frame.size, offset + readChunkBytes)).bytes();
    crc = crc32(chunk, crc);
  }
  return crc === expected;
}

function movedAwayError({ stream, source, frame }: ServedFrame): FramesError {
  return notFound(
    `Frame ${JSON.stringify(frame.name)} of ${source} in ${stream} is not there any more: it was moved away`,
  );
}

function damagedError({ source, frame }: ServedFrame): FramesError {
  return new FramesError(
    "damaged",
    `The file of frame ${JSON.stringify(frame.name)} of ${source} is not what was stored: frames verify tells more`,
  );
}
