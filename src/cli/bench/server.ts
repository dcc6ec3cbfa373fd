/**
 * What the link to a server and the server itself can do: for `frames bench HOST:PORT`.
 *
 * A server that is in use must be none the worse for it, so all frames are of a source that every
 * server has to refuse (SPEC sections 4 and 12): it reads and checks them, and keeps nothing, neither
 * files nor rows of its journal. It says REFUSED as soon as a frame's description is in, which comes
 * behind all bytes of the frames before: that is the clock here.
 */
import { FramesError } from "../../errors.ts";
import { monotonicNow } from "../../common/clock.ts";
import { sendPlan, type SendOptions } from "../../client/send.ts";
import { type CapturedFrame, IterableSource } from "../../source/live/iterable-source.ts";
import { noise } from "./machine.ts";

/** What no server may keep; it says in the server's log who it was. */
const refusedName = ".frames-bench";

const roundTripCount = 5;
const minFrameBytes = 16_000;

/** Bytes of the frames that count. */
export const linkFrameBytes = 1_000_000;

/** What is sent at most; a server's log may have a line for each frame. */
const maxBytes = 64_000_000;
const maxFrames = 90;

/** Milliseconds after which nothing more is sent, and that an answer may take. */
const maxSendMs = 3000;
const answerTimeoutMs = 10_000;

/** A link that holds bytes for longer, in milliseconds, is full: more would only wait. */
const fullQueueMs = 500;

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
interface Sample {
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
  const failed = new AbortController();
  let reason: FramesError | undefined;
  const planned = { stream: refusedName, sources: [source], skipped: [], unreadable: [] };
  const startedAt = monotonicNow();
  const { address, frames } = await sendPlan(
    { ...planned, filteredOut: 0 },
    {
      ...options,
      to,
      signal: AbortSignal.any([signal, failed.signal]),
      onEvent: (event) => {
        if (event.type === "undelivered") traffic.onRefused(event.report.error);
        if (event.type !== "waiting") return;
        // A measurement is not worth waiting for.
        reason ??= event.reason;
        failed.abort();
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
  return { address, ...traffic.result(startedAt, monotonicNow()) };
}

/** Frames, given out no faster than the link takes them. */
class Traffic {
  readonly #noise = noise(linkFrameBytes);
  readonly #roundTripsMs: number[] = [];
  readonly #samples: Sample[] = [];
  /** Frames under way, in order: when each was given out, and the bytes before it. */
  readonly #inFlight: Sample[] = [];
  #frames = 0;
  #bytes = 0;
  /** Bytes that may be under way: more while the link takes more, as TCP does it. */
  #maxInFlightBytes = 2 * minFrameBytes;
  #frameBytes = minFrameBytes;
  #maxFrameBytes = linkFrameBytes;
  #answered = Promise.withResolvers<void>();
  #failure: FramesError | undefined;

  async *frames(): AsyncGenerator<CapturedFrame> {
    for (let trip = 0; trip < roundTripCount; trip++) {
      const startedAt = monotonicNow();
      yield this.#next(1);
      await this.#waitForRoom(0);
      this.#roundTripsMs.push(monotonicNow() - startedAt);
    }
    this.#frames = this.#bytes = this.#samples.length = 0;
    const startedAt = monotonicNow();
    const hasTime = () => monotonicNow() - startedAt < maxSendMs;
    while (this.#bytes < maxBytes && this.#frames < maxFrames && hasTime()) {
      this.#frameBytes = Math.min(
        this.#maxFrameBytes,
        Math.max(minFrameBytes, Math.floor(this.#maxInFlightBytes / 4)),
      );
      await this.#waitForRoom(this.#maxInFlightBytes - this.#frameBytes);
      yield this.#next(this.#frameBytes);
    }
    // Its answer comes behind the bytes of the last that counts.
    yield this.#next(1);
  }

  #next(size: number): CapturedFrame {
    this.#inFlight.push({ at: monotonicNow(), bytes: this.#bytes });
    this.#frames++;
    this.#bytes += size;
    return { name: refusedName, bytes: this.#noise.subarray(0, size) };
  }

  /** Waits until no more than so many bytes are under way. */
  async #waitForRoom(maxBytes: number): Promise<void> {
    for (;;) {
      this.check();
      const [oldest] = this.#inFlight;
      if (oldest === undefined || this.#bytes - oldest.bytes <= maxBytes) return;
      this.#answered = Promise.withResolvers();
      const timer = setTimeout(() => {
        const seconds = answerTimeoutMs / 1000;
        const message = `The server answered no frame within ${seconds} s`;
        this.#answered.reject(new FramesError("timeout", message));
      }, answerTimeoutMs);
      await this.#answered.promise.finally(() => clearTimeout(timer));
    }
  }

  /** @throws {FramesError} what a frame was refused for instead of its name */
  check(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }

  /** The next frame was refused, as it has to be. */
  onRefused(error: FramesError): void {
    const frame = this.#inFlight.shift();
    if (frame === undefined) return;
    const now = monotonicNow();
    if (error.code === "too-large") {
      // It was never sent, since the server had said what it takes (`frames serve --max-frame`).
      this.#maxFrameBytes = Math.max(1, Math.floor(this.#maxFrameBytes / 2));
    } else if (error.code !== "bad-name") {
      this.#failure ??= error;
    } else {
      this.#samples.push({ at: now, bytes: frame.bytes });
      if (now - frame.at < fullQueueMs + 2 * this.#roundTripMs) {
        this.#maxInFlightBytes += this.#frameBytes;
      }
    }
    this.#answered.resolve();
  }

  /** In milliseconds. */
  get #roundTripMs(): number {
    return this.#roundTripsMs.toSorted((a, b) => a - b)[this.#roundTripsMs.length >> 1] ?? 0;
  }

  /** The rate of the second half: in the first, frames grow and TCP finds out what the link bears. */
  result(startedAt: number, endedAt: number): Omit<LinkMeasurement, "address"> {
    const bytes = this.#bytes;
    const last = this.#samples.at(-1) ?? { at: endedAt, bytes };
    const half = this.#samples.find((sample) => sample.bytes >= last.bytes / 2) ?? {
      at: startedAt,
      bytes: 0,
    };
    const from = half.bytes < last.bytes ? half : { at: startedAt, bytes: 0 };
    const milliseconds = Math.max(last.at - from.at, 0.001);
    const bytesPerSecond = ((last.bytes - from.bytes) / milliseconds) * 1000;
    return {
      frames: this.#frames,
      frameBytes: this.#frameBytes,
      bytes,
      bytesPerSecond,
      roundTrip: this.#roundTripMs / 1000,
    };
  }
}
