/** `pause`: the next time without frames of a source, although no numbers need be missing. */
import { usageError } from "../../errors.ts";
import type { RunSlice } from "../../frame.ts";
import type {
  FrameRecord,
  JournalPosition,
  JournalReader,
} from "../../store/journal/journal-reader.ts";
import { jsonResponse, notFound } from "../responses.ts";
import { formatCursor, frameJson, parseCursor } from "./frame-json.ts";
import type { StreamRequest } from "./request.ts";

/** Shortest pause in ns, and the shortest one as a multiple of the usual interval. */
const minPause = 2_000_000_000n;
const minIntervals = 5n;

/** Frames on each side of a position whose median interval is the usual one. */
const nearbyFrames = 50;

/** Look-ups of one slice of work, and slices of one request. */
const stepsPerSlice = 50;
const maxSlices = 200;

const [firstTime, lastTime] = [-(2n ** 63n), 2n ** 63n - 1n];

/** A time without frames: from the capture time `since` to that of `frame`. */
interface Pause {
  readonly since: bigint;
  readonly frame: FrameRecord;
}

type Direction = "after" | "before";

/** @throws {FramesError} `usage` without a source and a cursor */
export async function handlePause(req: StreamRequest): Promise<Response> {
  const { stream, context, run } = req;
  const { searchParams } = req.url;
  const source = searchParams.get("source");
  const direction: Direction = searchParams.has("after") ? "after" : "before";
  const cursor = searchParams.get(direction);
  if (source === null || cursor === null) {
    throw usageError("Cannot find a pause: expected ?source= and ?after= or ?before=");
  }
  if (!req.principal.canRead(stream, source)) throw notFound(`${stream} has no source ${source}`);
  const search = new PauseSearch(context.reader, { stream, source }, direction);
  const { pause, next } = await search.run(parseCursor(cursor), run);
  return jsonResponse({
    pause: pause === undefined ? null : { since: pause.since, frame: frameJson(pause.frame) },
    next: next === undefined ? null : formatCursor(next),
  });
}

/**
 * Goes from frame to frame by as much as a pause is long, so that the work does not grow with the
 * frames. A pause is where such a step meets no frame.
 */
class PauseSearch {
  readonly #reader: JournalReader;
  readonly #stream: string;
  readonly #source: string;
  readonly #direction: Direction;

  constructor(
    reader: JournalReader,
    { stream, source }: { readonly stream: string; readonly source: string },
    direction: Direction,
  ) {
    this.#reader = reader;
    this.#stream = stream;
    this.#source = source;
    this.#direction = direction;
  }

  /** Returns the next pause, or the position to go on from if the work of one request is done. */
  async run(
    position: JournalPosition,
    run: RunSlice,
  ): Promise<{ pause?: Pause; next?: JournalPosition }> {
    const length = await run(() => this.#minLength(position));
    const isAfter = this.#direction === "after";
    let at = isAfter ? position.captured : (await run(() => this.#before(position)))?.captured;
    for (let slice = 0; slice < maxSlices; slice++) {
      const pause = await run(() => {
        for (let step = 0; step < stepsPerSlice && at !== undefined; step++) {
          const found = isAfter ? this.#stepAfter(at, length) : this.#stepBefore(at, length);
          if (typeof found === "object") return found;
          at = found;
        }
        return undefined;
      });
      if (pause !== undefined) return { pause };
      if (at === undefined) return {};
    }
    return { next: startOf(isAfter ? at! : at! + 1n) };
  }

  /** Returns a pause that begins at a time, or the last capture time within `length` after it. */
  #stepAfter(at: bigint, length: bigint): Pause | bigint | undefined {
    const end = startOf(at + length + 1n);
    const last = this.#before(end);
    if (last !== undefined && last.captured > at) return last.captured;
    const frame = this.#after(end);
    return frame === undefined ? undefined : { since: at, frame };
  }

  /** Returns a pause that ends at a time, or the first capture time within `length` before it. */
  #stepBefore(at: bigint, length: bigint): Pause | bigint | undefined {
    const start = startOf(at - length);
    const frame = this.#after(start);
    if (frame === undefined) return undefined;
    if (frame.captured < at) return frame.captured;
    const last = this.#before(start);
    return last === undefined ? undefined : { since: last.captured, frame };
  }

  /** Returns the shortest time that is a pause near a position, in ns. */
  #minLength(position: JournalPosition): bigint {
    const times = [
      ...this.#reader.framesBefore(this.#stream, this.#source, position, nearbyFrames),
      ...this.#reader.framesAfter(this.#stream, this.#source, position, nearbyFrames),
    ].map(({ captured }) => captured);
    const intervals = times.slice(1).map((time, index) => time - times[index]!);
    const usual = intervals.toSorted((a, b) => Number(a - b))[intervals.length >> 1] ?? 0n;
    return usual * minIntervals > minPause ? usual * minIntervals : minPause;
  }

  #before(position: JournalPosition): FrameRecord | undefined {
    return this.#reader.framesBefore(this.#stream, this.#source, position, 1)[0];
  }

  #after(position: JournalPosition): FrameRecord | undefined {
    return this.#reader.framesAfter(this.#stream, this.#source, position, 1)[0];
  }
}

/** Returns the position before all frames of a capture time, which is limited to what a row can have. */
function startOf(time: bigint): JournalPosition {
  const captured = time < firstTime ? firstTime : time > lastTime ? lastTime : time;
  return { captured, sequence: 0, id: 0 };
}
