/**
 * What the link to a server and the server itself can do: for `frames bench HOST:PORT`.
 *
 * A server that is in use must be none the worse for it, so all frames are of a source that every
 * server has to refuse (SPEC sections 4 and 12): it reads and checks them, and keeps nothing, neither
 * files nor rows of its journal. It says REFUSED as soon as a frame's description is in, which comes
 * behind all bytes of the frames before: that is the clock here.
 */
import { FramesError } from "../errors.ts";
import { steadyNow } from "../net/connection.ts";
import { deliver, type SendOptions } from "../send.ts";
import { type CapturedFrame, IterableSource } from "../source/iterable.ts";
import { noise } from "./bench-machine.ts";

/** What no server may keep; it says in the server's log who it was. */
const refusedName = ".frames-bench";

const roundTrips = 5;
const smallest = 16_000;

/** Bytes of the frames that count. */
export const linkFrameBytes = 1_000_000;

/** What is sent at most; a server's log may have a line for each frame. */
const mostBytes = 64_000_000;
const mostFrames = 90;

/** Milliseconds after which nothing more is sent, and that an answer may take. */
const sendFor = 3000;
const answerWithin = 10_000;

/** A link that holds bytes for longer, in milliseconds, is full: more would only wait. */
const fullAfter = 500;

/** What was found out about link and server together. */
export interface LinkMeasurement {
  readonly address: string;
  /** Frames sent to measure the rate, the size that they grew to, and all their bytes. */
  readonly frames: number;
  readonly frameBytes: number;
  readonly bytes: number;
  readonly bytesPerSecond: number;
  /** Median round trip, in seconds. */
  readonly roundTrip: number;
}

/** That so many bytes of frames had come at a time. */
interface Mark {
  readonly at: number;
  readonly bytes: number;
}

/**
 * Measures link and server, and leaves nothing there.
 *
 * @param options how the server is spoken to
 * @param signal ends it early
 * @throws {FramesError} as `send`
 */
export async function measureLink(
  to: string,
  options: Pick<SendOptions, "key" | "keyFile" | "insecure">,
  signal: AbortSignal,
): Promise<LinkMeasurement> {
  const traffic = new Traffic();
  const started = Date.now();
  const source = new IterableSource(refusedName, traffic.frames(), {
    started,
    clock: Date.now,
  });
  const broken = new AbortController();
  let reason: FramesError | undefined;
  const planned = { stream: refusedName, sources: [source], skipped: [], unreadable: [] };
  const began = steadyNow();
  const { address, frames } = await deliver(
    { ...planned, leftOut: 0 },
    {
      ...options,
      to,
      signal: AbortSignal.any([signal, broken.signal]),
      onEvent: (event) => {
        if (event.type === "undelivered") traffic.refused(event.report.error);
        if (event.type !== "waiting") return;
        // A measurement is not worth waiting for.
        reason ??= event.reason;
        broken.abort();
      },
    },
    started,
  ).catch((error: unknown) => {
    throw reason ?? error;
  });
  if (reason !== undefined) throw reason;
  traffic.check();
  if (frames > 0)
    throw new FramesError("protocol", `${address} stored frames named ${refusedName}`);
  return { address, ...traffic.result(began, steadyNow()) };
}

/** Frames, given out no faster than the link takes them. */
class Traffic {
  readonly #noise = noise(linkFrameBytes);
  readonly #trips: number[] = [];
  readonly #marks: Mark[] = [];
  /** Frames under way, in order: when each was given out, and the bytes before it. */
  readonly #underWay: Mark[] = [];
  #frames = 0;
  #bytes = 0;
  /** Bytes that may be under way: more while the link takes more, as TCP does it. */
  #allowed = 2 * smallest;
  #size = smallest;
  #largest = linkFrameBytes;
  #answered = Promise.withResolvers<void>();
  #failure: FramesError | undefined;

  async *frames(): AsyncGenerator<CapturedFrame> {
    for (let trip = 0; trip < roundTrips; trip++) {
      const began = steadyNow();
      yield this.#next(1);
      await this.#room(0);
      this.#trips.push(steadyNow() - began);
    }
    this.#frames = this.#bytes = this.#marks.length = 0;
    const began = steadyNow();
    const hasTime = () => steadyNow() - began < sendFor;
    while (this.#bytes < mostBytes && this.#frames < mostFrames && hasTime()) {
      this.#size = Math.min(this.#largest, Math.max(smallest, Math.floor(this.#allowed / 4)));
      await this.#room(this.#allowed - this.#size);
      yield this.#next(this.#size);
    }
    // Its answer comes behind the bytes of the last that counts.
    yield this.#next(1);
  }

  #next(size: number): CapturedFrame {
    this.#underWay.push({ at: steadyNow(), bytes: this.#bytes });
    this.#frames++;
    this.#bytes += size;
    return { name: refusedName, bytes: this.#noise.subarray(0, size) };
  }

  /** Waits until no more than so many bytes are under way. */
  async #room(most: number): Promise<void> {
    for (;;) {
      this.check();
      const [oldest] = this.#underWay;
      if (oldest === undefined || this.#bytes - oldest.bytes <= most) return;
      this.#answered = Promise.withResolvers();
      const timer = setTimeout(() => {
        const seconds = answerWithin / 1000;
        const message = `The server answered no frame within ${seconds} s`;
        this.#answered.reject(new FramesError("timeout", message));
      }, answerWithin);
      await this.#answered.promise.finally(() => clearTimeout(timer));
    }
  }

  /** @throws {FramesError} what a frame was refused for instead of its name */
  check(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }

  /** The next frame was refused, as it has to be. */
  refused(error: FramesError): void {
    const frame = this.#underWay.shift();
    if (frame === undefined) return;
    const now = steadyNow();
    if (error.code === "too-large") {
      // It was never sent, since the server had said what it takes (`frames serve --max-frame`).
      this.#largest = Math.max(1, Math.floor(this.#largest / 2));
    } else if (error.code !== "bad-name") {
      this.#failure ??= error;
    } else {
      this.#marks.push({ at: now, bytes: frame.bytes });
      if (now - frame.at < fullAfter + 2 * this.#roundTrip) {
        this.#allowed += this.#size;
      }
    }
    this.#answered.resolve();
  }

  /** In milliseconds. */
  get #roundTrip(): number {
    return this.#trips.toSorted((a, b) => a - b)[this.#trips.length >> 1] ?? 0;
  }

  /** The rate of the second half: in the first, frames grow and TCP finds out what the link bears. */
  result(began: number, ended: number): Omit<LinkMeasurement, "address"> {
    const bytes = this.#bytes;
    const last = this.#marks.at(-1) ?? { at: ended, bytes };
    const half = this.#marks.find((mark) => mark.bytes >= last.bytes / 2) ?? {
      at: began,
      bytes: 0,
    };
    const from = half.bytes < last.bytes ? half : { at: began, bytes: 0 };
    const milliseconds = Math.max(last.at - from.at, 0.001);
    const bytesPerSecond = ((last.bytes - from.bytes) / milliseconds) * 1000;
    return {
      frames: this.#frames,
      frameBytes: this.#size,
      bytes,
      bytesPerSecond,
      roundTrip: this.#roundTrip / 1000,
    };
  }
}
