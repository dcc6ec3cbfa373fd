/** A frame as an answer: whole or in part, known by its checksum, and in memory only if it is small. */
import { crc32 } from "node:zlib";
import type { FrameDescription, RawShape } from "../frame.ts";
import { FramesError } from "../errors.ts";
import { missing, refusal } from "./answers.ts";
import type { Asked } from "./asked.ts";
import type { Exhibition } from "./exhibition.ts";
import { disposition, mediaType, secondsText } from "./media.ts";

/** What is answered from memory; larger frames are read as they go out. */
const smallBytes = 1 << 20;

/** Larger frames than this are not read through before they go out; bytes that are read at a time. */
const largestChecked = 64 << 20;
const pieceBytes = 1 << 20;

/** Whoever reads nothing of an answer for so many seconds is gone. */
const patience = 120;

/** A frame that is there, or was. */
export interface Shown {
  readonly stream: string;
  readonly source: string;
  readonly frame: Pick<FrameDescription, "name" | "sequence" | "captured" | "size">;
  readonly crc32: number;
  readonly raw: RawShape | undefined;
}

/** Part of a frame: its first byte, and the one behind its last. */
interface Part {
  readonly from: number;
  readonly to: number;
}

/**
 * Answers with a frame, or with the part that is asked for.
 *
 * @param held its bytes, if they are in memory already
 */
export async function frameAnswer(
  asked: Asked,
  { kept }: Pick<Exhibition, "kept">,
  shown: Shown,
  held?: Uint8Array<ArrayBuffer>,
): Promise<Response> {
  const { request } = asked;
  const { frame } = shown;
  const headers = headersOf(shown);
  if (matches(request.headers.get("If-None-Match"), headers["ETag"]!)) {
    return new Response(null, { status: 304, headers });
  }
  const part = partOf(request, frame.size, headers["ETag"]!);
  if (part === undefined) {
    const range = { "Content-Range": `bytes */${frame.size}` };
    return refusal(416, "usage", `The frame has ${frame.size} bytes, and not those`, range);
  }
  const isWhole = part.from === 0 && part.to === frame.size;
  const length = part.to - part.from;
  const status = isWhole ? 200 : 206;
  if (!isWhole) headers["Content-Range"] = `bytes ${part.from}-${part.to - 1}/${frame.size}`;
  const blob = held === undefined ? kept.bytesOf({ ...shown, ...frame }) : undefined;
  if (held === undefined && blob === undefined) throw goneError(shown);
  if (request.method === "HEAD") {
    const described = { ...headers, "Content-Length": String(length) };
    return new Response(null, { status, headers: described });
  }
  if (held !== undefined || frame.size <= smallBytes) {
    const bytes = held ?? (await blob!.bytes().catch(() => undefined));
    if (bytes === undefined || bytes.length !== frame.size) throw goneError(shown);
    if (held === undefined && crc32(bytes) !== shown.crc32) throw changedError(shown);
    asked.mayTake(patience);
    return new Response(bytes.subarray(part.from, part.to), { status, headers });
  }
  if (isWhole && frame.size <= largestChecked && !(await isIntact(blob!, shown))) {
    throw changedError(shown);
  }
  asked.mayTake(patience);
  const body = blob!.slice(part.from, part.to);
  // Bun reads it as it goes out; of a bucket's it would make an answer that leads there.
  if (kept.fetch === undefined) return new Response(body, { status, headers });
  headers["Content-Length"] = String(length);
  return new Response(body.stream(), { status, headers });
}

function headersOf({ frame, crc32: crc, raw }: Shown): Record<string, string> {
  const type = mediaType(frame.name, raw);
  return {
    "Content-Type": type,
    "Content-Disposition": disposition(frame.name, type),
    "X-Sequence": String(frame.sequence),
    "X-Timestamp": secondsText(frame.captured),
    ETag: `"${crc.toString(16).padStart(8, "0")}-${frame.size}"`,
    "Accept-Ranges": "bytes",
    // Another frame may take the place of this one.
    "Cache-Control": "private, no-cache",
  };
}

function matches(given: string | null, etag: string): boolean {
  if (given === null) return false;
  return given
    .split(",")
    .some((one) => one.trim() === "*" || one.trim().replace(/^W\//, "") === etag);
}

/** What is asked for; all of it unless that is one part that can be understood; nothing if it is not there. */
function partOf(request: Request, size: number, etag: string): Part | undefined {
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
async function isIntact(blob: Blob, { frame, crc32: expected }: Shown): Promise<boolean> {
  let crc = 0;
  for (let at = 0; at < frame.size; at += pieceBytes) {
    const piece = await blob.slice(at, Math.min(frame.size, at + pieceBytes)).bytes();
    crc = crc32(piece, crc);
  }
  return crc === expected;
}

function goneError({ stream, source, frame }: Shown): FramesError {
  return missing(
    `Frame ${JSON.stringify(frame.name)} of ${source} in ${stream} is not there any more: it was moved away`,
  );
}

function changedError({ source, frame }: Shown): FramesError {
  return new FramesError(
    "damaged",
    `The file of frame ${JSON.stringify(frame.name)} of ${source} is not what was stored: frames verify tells more`,
  );
}
