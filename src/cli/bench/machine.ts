/** Measures each step of a frame's way on this machine, for `frames bench`. */
import { mkdirSync, mkdtempSync, rmSync, statfsSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { crc32 } from "../../common/checksum.ts";
import { asFramesError, FramesError, systemCode, systemSentence } from "../../errors.ts";
import type { Frame, FrameStore, Outcome } from "../../frame.ts";
import { monotonicNow } from "../../common/clock.ts";
import { send } from "../../client/send.ts";
import { serve } from "../../server/serve.ts";
import { DirectorySource } from "../../source/files/directory-source.ts";
import { DirectoryStore } from "../../store/directory/directory-store.ts";
import { maxPackedFrameBytes } from "../../wire/encode.ts";

/** A measured step; `delivery` and `link` combine several. */
export type Step = "read" | "checksum" | "store" | "store-durable" | "delivery" | "link";

/** Result of one step with frames of one size. */
export interface Measurement {
  readonly step: Step;
  readonly frameBytes: number;
  readonly frames: number;
  readonly seconds: number;
}

/** A pass of a step ends after this many bytes or this time. */
const maxPassBytes = 16_000_000;
const maxPassMs = 1000;

/** Passes are repeated for this time, because the first one is slow: code and files are cold. */
const maxStepMs = 600;

/** Limit of passes per step; low for steps that write to the disk. */
const maxPasses: Record<Exclude<Step, "link">, number> = {
  read: 20,
  checksum: 20,
  store: 2,
  "store-durable": 2,
  delivery: 2,
};

/** Approximate size of the chunks that a socket delivers. */
const chunkBytes = 500_000;

/** Type that Linux `statfs` reports for tmpfs, a file system in memory. */
const tmpfsType = 0x01021994;

/** Temporary folder for the measurements; removed at the end, also when the process exits. */
export class TempFolder {
  readonly path: string;
  readonly #remove = () => rmSync(this.path, { recursive: true, force: true, maxRetries: 3 });

  /**
   * @param directory default: the system's temporary folder
   * @throws {FramesError} `missing` or `store`
   */
  constructor(directory = tmpdir()) {
    try {
      // Hidden, so that it is not taken for a stream if the directory is a store.
      this.path = mkdtempSync(join(resolve(directory), ".frames-bench-"));
    } catch (error) {
      const code = systemCode(error);
      const isMissing = code === "ENOENT" || code === "ENOTDIR";
      const reason = systemSentence(error);
      const message = `Cannot measure in ${directory}: ${reason}; choose a writable folder with --dir`;
      throw new FramesError(isMissing ? "missing" : "store", message, { cause: error });
    }
    // A second signal ends the process without a call of `remove`.
    process.on("exit", this.#remove);
  }

  /** Whether the folder is in memory, so that no disk is measured. */
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
  /** Random bytes, because some file systems compress. */
  readonly #noise: Uint8Array;
  readonly #files: string;
  readonly #fileNames: string[] = [];
  #storeCount = 0;

  /**
   * Creates the files to measure with.
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
   * Measures a step; returns its fastest pass.
   *
   * @throws if the signal is aborted, or the step fails
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
    const source = new DirectorySource({
      ...{ name: "bench", path: this.#files, names: this.#fileNames },
      onEvent() {},
    });
    const into = new Uint8Array(this.#frameBytes);
    try {
      return await this.#repeat(this.#fileNames.length, async () => {
        const frame = await source.next(false);
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

  /** Stores frames in chunks, as `serve` receives them. */
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

  /** Sends the files to a server in this process. */
  async #sendOverLoopback(): Promise<PassResult> {
    const folder = join(this.#tempFolder, `store-${++this.#storeCount}`);
    const server = await serve(folder, { listen: "127.0.0.1:0" });
    try {
      const startedAt = monotonicNow();
      const signal = AbortSignal.any([this.#signal, AbortSignal.timeout(maxPassMs)]);
      const options = { to: server.address, stream: "bench", signal };
      const { frames, undelivered } = await send(this.#files, options);
      this.#signal.throwIfAborted();
      if (undelivered[0] !== undefined) throw undelivered[0].error;
      return { frames, seconds: (monotonicNow() - startedAt) / 1000 };
    } finally {
      await server.stop();
      rmSync(folder, { recursive: true, force: true, maxRetries: 3 });
    }
  }

  /** Repeats `action` for `times` frames or `maxPassMs`; yields every 50 ms for signal handlers. */
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

  /** Removes the files. */
  clear(): void {
    rmSync(this.#files, { recursive: true, force: true, maxRetries: 3 });
  }
}

interface PassResult {
  readonly frames: number;
  readonly seconds: number;
}

/** Returns random bytes, which do not compress. */
export function noise(length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  // `getRandomValues` accepts at most 65,536 bytes.
  for (let at = 0; at < length; at += 65_536) {
    crypto.getRandomValues(bytes.subarray(at, at + 65_536));
  }
  return bytes;
}

async function readPieces(frame: Frame): Promise<void> {
  const pieces = frame.pieces();
  while ((await pieces.next()).done !== true);
}

/** Yields to the event loop, so that signal handlers run. */
async function yieldToEventLoop(): Promise<void> {
  await new Promise<void>((resolve) => setImmediate(resolve));
}
