/**
 * Measures the link to a server together with the server, for `frames bench HOST:PORT`.
 *
 * The server may be in use, so the measurement must leave no files and no rows in its journal.
 * Therefore all frames have a source name that every server refuses (SPEC sections 4 and 12). The
 * server still reads and checks their bytes. It sends REFUSED as soon as it has a frame's
 * description, which follows all bytes of the frames before. The REFUSED messages are the clock.
 */
import { FramesError } from "../../errors.ts";
import { monotonicNow } from "../../common/clock.ts";
import { sendPlan } from "../../client/send.ts";
import type { SendOptions } from "../../client/send-options.ts";
import { type CapturedFrame, IterableSource } from "../../source/live/iterable-source.ts";
import { noise } from "./machine.ts";

/** Name of stream, source and frames. Servers refuse the leading dot; their log shows the name. */
const refusedName = ".frames-bench";

const roundTripCount = 5;
const minFrameBytes = 16_000;

/** Largest frame sent, in bytes. */
export const linkFrameBytes = 1_000_000;

/** Limits of the frames sent. They are few, because a server may log a line for each. */
const maxBytes = 64_000_000;
const maxFrames = 90;

/** Limits for sending, and for each answer. */
const maxSendMs = 3000;
const answerTimeoutMs = 10_000;

/** Queueing delay above which the link is full, so that more data in flight would only wait. */
const fullQueueMs = 500;

/** Result for link and server together. */
export interface LinkMeasurement {
  readonly address: string;
  /** Frames sent to measure the rate, their final size, and the bytes of all. */
  readonly frames: number;
  readonly frameBytes: number;
  readonly bytes: number;
  readonly bytesPerSecond: number;
  /** Median round trip, in seconds. */
  readonly roundTrip: number;
}

/** Bytes of the earlier frames, sent or answered at the time `at` (milliseconds). */
interface Sample {
  readonly at: number;
  readonly bytes: number;
}

/**
 * Measures link and server; the server stores nothing.
 *
 * @param options keys for the connection
 * @param signal ends the measurement early
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
        // End at the first lost connection; a measurement does not wait for a retry.
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

/** Generates frames no faster than the link transports them, and measures the answers. */
class Traffic {
  readonly #noise = noise(linkFrameBytes);
  readonly #roundTripsMs: number[] = [];
  readonly #samples: Sample[] = [];
  /** Frames in flight, in order: the time at which each was sent, and the bytes before it. */
  readonly #inFlight: Sample[] = [];
  #frames = 0;
  #bytes = 0;
  /** Congestion window in bytes; grows while the link is not full, as in TCP. */
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
    // The answer to this frame shows that all bytes of the last measured frame have arrived.
    yield this.#next(1);
  }

  #next(size: number): CapturedFrame {
    this.#inFlight.push({ at: monotonicNow(), bytes: this.#bytes });
    this.#frames++;
    this.#bytes += size;
    return { name: refusedName, bytes: this.#noise.subarray(0, size) };
  }

  /** Waits until at most `maxBytes` are in flight. */
  async #waitForRoom(maxBytes: number): Promise<void> {
    for (;;) {
      this.check();
      const [oldest] = this.#inFlight;
      if (oldest === undefined || this.#bytes - oldest.bytes <= maxBytes) return;
      this.#answered = Promise.withResolvers();
      const timer = setTimeout(() => {
        const seconds = answerTimeoutMs / 1000;
        const message = `The server did not answer a frame within ${seconds} s`;
        this.#answered.reject(new FramesError("timeout", message));
      }, answerTimeoutMs);
      await this.#answered.promise.finally(() => clearTimeout(timer));
    }
  }

  /** @throws {FramesError} if a frame was refused for another reason than its name or size */
  check(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }

  /** Records the answer to the oldest frame in flight. */
  onRefused(error: FramesError): void {
    const frame = this.#inFlight.shift();
    if (frame === undefined) return;
    const now = monotonicNow();
    if (error.code === "too-large") {
      // The client did not send it: it is over the server's limit (`frames serve --max-frame`).
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

  /** Median round trip; 0 until one is measured. */
  get #roundTripMs(): number {
    return this.#roundTripsMs.toSorted((a, b) => a - b)[this.#roundTripsMs.length >> 1] ?? 0;
  }

  /** Uses the rate of the second half, because frames and TCP's window still grow in the first. */
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
