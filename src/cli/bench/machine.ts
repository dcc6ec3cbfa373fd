/** What this machine can do with frames, step by step: for `frames bench`. */
import { mkdirSync, mkdtempSync, rmSync, statfsSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { crc32 } from "node:zlib";
import { asFramesError, FramesError, systemCode, systemSentence } from "../../errors.ts";
import type { Frame, FrameStore, Outcome } from "../../frame.ts";
import { monotonicNow } from "../../common/clock.ts";
import { plan } from "../../client/plan/plan.ts";
import { sendPlan } from "../../client/send.ts";
import { serve } from "../../server/serve.ts";
import { DirectorySource } from "../../source/files/directory-source.ts";
import { DirectoryStore } from "../../store/directory/directory-store.ts";
import { maxPackedFrameBytes } from "../../wire/encode.ts";

/** A step on the way of a frame, or several of them together. */
export type Step = "read" | "checksum" | "store" | "store-durable" | "delivery" | "link";

/** How fast one step was with frames of one size. */
export interface Measurement {
  readonly step: Step;
  readonly frameBytes: number;
  readonly frames: number;
  readonly seconds: number;
}

/** Bytes that one pass of a step takes on, and milliseconds after which it ends early. */
const maxPassBytes = 16_000_000;
const maxPassMs = 1000;

/** Passes go on for so many milliseconds: the first is slow, since code and files are still cold. */
const maxStepMs = 600;

/** Passes of a step at most: few where each fills the disk some more. */
const maxPasses: Record<Exclude<Step, "link">, number> = {
  read: 20,
  checksum: 20,
  store: 2,
  "store-durable": 2,
  delivery: 2,
};

/** Bytes that a socket gives at a time, about. */
const chunkBytes = 500_000;

/** `statfs` of Linux calls a file system in memory this. */
const tmpfsType = 0x01021994;

/** A folder for what is measured with, which goes at the end whatever happens. */
export class TempFolder {
  readonly path: string;
  readonly #remove = () => rmSync(this.path, { recursive: true, force: true, maxRetries: 3 });

  /**
   * @param directory default: the system's temporary folder
   * @throws {FramesError} `missing` or `store`
   */
  constructor(directory = tmpdir()) {
    try {
      // Hidden, so that nobody takes it for a stream should this be a store.
      this.path = mkdtempSync(join(resolve(directory), ".frames-bench-"));
    } catch (error) {
      const code = systemCode(error);
      const isMissing = code === "ENOENT" || code === "ENOTDIR";
      const message = `Cannot measure in ${directory}: ${systemSentence(error)}`;
      throw new FramesError(isMissing ? "missing" : "store", message, { cause: error });
    }
    // A second signal ends the process at once.
    process.on("exit", this.#remove);
  }

  /** Whether it lies in memory: then no disk is measured. */
  get isInMemory(): boolean {
    return process.platform === "linux" && statfsSync(this.path).type === tmpfsType;
  }

  remove(): void {
    process.off("exit", this.#remove);
    this.#remove();
  }
}

/** Measures steps with frames of one size. */
export class MachineBench {
  readonly #tempFolder: string;
  readonly #frameBytes: number;
  readonly #signal: AbortSignal;
  /** What compresses to nothing would flatter some file systems. */
  readonly #noise: Uint8Array;
  readonly #files: string;
  readonly #fileNames: string[] = [];
  #storeCount = 0;

  /**
   * Makes its files.
   *
   * @throws {FramesError} `store`
   */
  constructor(tempFolder: TempFolder, frameBytes: number, signal: AbortSignal) {
    this.#tempFolder = tempFolder.path;
    this.#frameBytes = frameBytes;
    this.#signal = signal;
    this.#noise = noise(frameBytes);
    this.#files = join(tempFolder.path, `frames-of-${frameBytes}`);
    const deadline = monotonicNow() + maxPassMs;
    try {
      mkdirSync(this.#files);
      while (this.#fileNames.length < this.#frameCount && monotonicNow() < deadline) {
        const name = `${this.#fileNames.length + 1}.raw`;
        writeFileSync(join(this.#files, name), this.#noise);
        this.#fileNames.push(name);
      }
    } catch (error) {
      throw asFramesError(error, "store", `Cannot measure in ${tempFolder.path}`);
    }
  }

  get #frameCount(): number {
    return Math.ceil(maxPassBytes / this.#frameBytes);
  }

  /**
   * Measures a step: its fastest pass counts.
   *
   * @throws {FramesError} `interrupted`, or what the step met
   */
  async measure(step: Exclude<Step, "link">): Promise<Measurement> {
    const pass = {
      read: () => this.#read(),
      checksum: () => this.#checksum(),
      store: () => this.#storeFrames(false),
      "store-durable": () => this.#storeFrames(true),
      delivery: () => this.#sendOverLoopback(),
    }[step];
    const startedAt = monotonicNow();
    let best: Measurement | undefined;
    let passes = 0;
    while (passes < maxPasses[step] && (passes === 0 || monotonicNow() - startedAt < maxStepMs)) {
      const { frames, seconds } = await pass();
      passes++;
      if (best === undefined || frames * best.seconds > best.frames * seconds) {
        best = { step, frameBytes: this.#frameBytes, frames, seconds };
      }
    }
    return best!;
  }

  /** Reads the files as `send` does. */
  async #read(): Promise<PassResult> {
    const source = new DirectorySource("bench", this.#files, this.#fileNames, () => {});
    const into = new Uint8Array(this.#frameBytes);
    try {
      return await this.#repeat(this.#fileNames.length, async () => {
        const frame = source.next(false);
        if (frame === undefined) throw new FramesError("internal");
        if ("error" in frame) throw frame.error;
        if (frame.size <= maxPackedFrameBytes) frame.read(into);
        else await readPieces(frame);
      });
    } finally {
      source.close();
    }
  }

  async #checksum(): Promise<PassResult> {
    return await this.#repeat(this.#frameCount, () => void crc32(this.#noise));
  }

  /** Stores frames as `serve` does that come in by the chunk. */
  async #storeFrames(durable: boolean): Promise<PassResult> {
    const folder = join(this.#tempFolder, `store-${++this.#storeCount}`);
    const store = new DirectoryStore(folder, { portableNames: false, durable, clock: Date.now });
    try {
      return await this.#fillStore(store);
    } finally {
      store.close();
      rmSync(folder, { recursive: true, force: true, maxRetries: 3 });
    }
  }

  async #fillStore(store: FrameStore): Promise<PassResult> {
    const session = crypto.randomUUID().replaceAll("-", "");
    const source = store.open({ stream: "bench", source: "bench", session });
    const outcomes: (Outcome | Promise<Outcome>)[] = [];
    let sequence = 0;
    const captured = BigInt(Date.now()) * 1_000_000n;
    const startedAt = monotonicNow();
    const { frames } = await this.#repeat(this.#frameCount, () => {
      const name = `${++sequence}.raw`;
      const size = this.#frameBytes;
      const writer = source.begin({ name, sequence, captured, size, metadata: "" });
      for (let at = 0; at < size; at += chunkBytes) {
        writer.write(this.#noise.subarray(at, Math.min(at + chunkBytes, size)));
      }
      outcomes.push(writer.finish(0));
    });
    await store.flush();
    for (const outcome of await Promise.all(outcomes)) {
      if (outcome instanceof FramesError) throw outcome;
    }
    return { frames, seconds: (monotonicNow() - startedAt) / 1000 };
  }

  /** The whole way, with both ends in this process. */
  async #sendOverLoopback(): Promise<PassResult> {
    const folder = join(this.#tempFolder, `store-${++this.#storeCount}`);
    const server = await serve(folder, { listen: "127.0.0.1:0" });
    try {
      const startedAt = monotonicNow();
      const started = Date.now();
      const signal = AbortSignal.any([this.#signal, AbortSignal.timeout(maxPassMs)]);
      const options = { to: server.address, stream: "bench", signal };
      const planned = await plan(this.#files, options, started);
      const { frames, undelivered } = await sendPlan(planned, options, started);
      this.#signal.throwIfAborted();
      if (undelivered[0] !== undefined) throw undelivered[0].error;
      return { frames, seconds: (monotonicNow() - startedAt) / 1000 };
    } finally {
      await server.stop();
      rmSync(folder, { recursive: true, force: true, maxRetries: 3 });
    }
  }

  /** Does something so many times, if there is time for it, and lets signals through now and then. */
  async #repeat(times: number, action: () => void | Promise<void>): Promise<PassResult> {
    await yieldToEventLoop();
    const startedAt = monotonicNow();
    let frames = 0;
    let yieldedAt = startedAt;
    for (let now = startedAt; frames < times && now - startedAt < maxPassMs; now = monotonicNow()) {
      if (now - yieldedAt > 50) {
        await yieldToEventLoop();
        yieldedAt = now;
      }
      this.#signal.throwIfAborted();
      await action();
      frames++;
    }
    return { frames, seconds: (monotonicNow() - startedAt) / 1000 };
  }

  /** Its files take no more room. */
  clear(): void {
    rmSync(this.#files, { recursive: true, force: true, maxRetries: 3 });
  }
}

interface PassResult {
  readonly frames: number;
  readonly seconds: number;
}

/** Bytes that nothing compresses. */
export function noise(length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  // So many are made at a time.
  for (let at = 0; at < length; at += 65_536) {
    crypto.getRandomValues(bytes.subarray(at, at + 65_536));
  }
  return bytes;
}

async function readPieces(frame: Frame): Promise<void> {
  const pieces = frame.pieces();
  while ((await pieces.next()).done !== true);
}

/** Lets the event loop turn, so that signals come in. */
async function yieldToEventLoop(): Promise<void> {
  await new Promise<void>((resolve) => setImmediate(resolve));
}
