/** `density`: how many frames of each source were captured in each part of a time, for a timeline. */
import { usageError } from "../../errors.ts";
import type { RunSlice } from "../../frame.ts";
import type { FrameRecord, JournalReader } from "../../store/journal/journal-reader.ts";
import { jsonResponse } from "../responses.ts";
import type { StreamRequest } from "./request.ts";

/** Limits of sources and of parts in one response. */
const maxSources = 64;
const maxParts = 500;

/** Parts of one source that are counted in one slice of work, with two look-ups each. */
const partsPerSlice = 50;

/** @throws {FramesError} `usage` if the times or the number of parts are no numbers */
export async function handleDensity(req: StreamRequest): Promise<Response> {
  const { stream, context } = req;
  const { searchParams } = req.url;
  const [from, to] = [parseTime(searchParams.get("from")), parseTime(searchParams.get("to"))];
  const parts = Number(searchParams.get("parts"));
  if (from === undefined || to === undefined || to <= from) {
    throw usageError("Cannot count frames: expected ?from= before ?to=, in nanoseconds");
  }
  if (!Number.isInteger(parts) || parts < 1 || parts > maxParts) {
    throw usageError(`Cannot count frames: expected ?parts= from 1 to ${maxParts}`);
  }
  const names = searchParams.getAll("source").slice(0, maxSources);
  const sources: { name: string; counts: readonly number[] }[] = [];
  for (const name of names) {
    if (!req.principal.canRead(stream, name)) continue;
    const source = { stream, name };
    sources.push({
      name,
      counts: await countFrames(context.reader, source, { from, to, parts }, req.run),
    });
  }
  return jsonResponse({ from, to, sources });
}

/**
 * Counts frames by the numbers of the first and the last one of each part, so that the work does not
 * grow with the frames. A part in which the numbers begin anew counts as one frame.
 */
async function countFrames(
  reader: JournalReader,
  { stream, name }: { readonly stream: string; readonly name: string },
  { from, to, parts }: { readonly from: bigint; readonly to: bigint; readonly parts: number },
  run: RunSlice,
): Promise<readonly number[]> {
  const counts = new Array<number>(parts).fill(0);
  const border = (part: number): bigint => from + ((to - from) * BigInt(part)) / BigInt(parts);
  const start = { captured: from, sequence: 0, id: 0 };
  let part = 0;
  let first = (await run(() => reader.framesAfter(stream, name, start, 1)))[0];
  while (part < parts && first !== undefined && first.captured < to) {
    await run(() => {
      const sliceEnd = Math.min(parts, part + partsPerSlice);
      for (; part < sliceEnd && first !== undefined && first.captured < to; part++) {
        if (first.captured >= border(part + 1)) continue;
        const end = { captured: border(part + 1), sequence: 0, id: 0 };
        const [last] = reader.framesBefore(stream, name, end, 1);
        counts[part] = countBetween(first, last);
        [first] = reader.framesAfter(stream, name, end, 1);
      }
    });
  }
  return counts;
}

/** Returns the number of frames from the first to the last one of a part. */
function countBetween(first: FrameRecord, last: FrameRecord | undefined): number {
  const count = last?.session === first.session ? last.sequence - first.sequence + 1 : 1;
  return Math.max(1, count);
}

function parseTime(text: string | null): bigint | undefined {
  return text !== null && /^-?\d{1,19}$/.test(text) ? BigInt.asIntN(64, BigInt(text)) : undefined;
}
