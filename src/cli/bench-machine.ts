/** What this machine can do with frames, step by step: for `frames bench`. */
import { mkdirSync, mkdtempSync, rmSync, statfsSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { crc32 } from "node:zlib";
import { asFramesError, FramesError, systemCode, systemSentence } from "../errors.ts";
import type { Frame, FrameStore, Outcome } from "../frame.ts";
import { steadyNow } from "../net/connection.ts";
import { plan } from "../client/plan.ts";
import { deliver } from "../send.ts";
import { serve } from "../serve.ts";
import { DirectorySource } from "../source/directory.ts";
import { DirectoryStore } from "../store/directory.ts";
import { largestPackedFrame } from "../wire/encode.ts";

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
const passBytes = 16_000_000;
const passTime = 1000;

/** Passes go on for so many milliseconds: the first is slow, since code and files are still cold. */
const stepTime = 600;

/** Passes of a step at most: few where each fills the disk some more. */
const mostPasses: Record<Exclude<Step, "link">, number> = {
  read: 20,
  checksum: 20,
  store: 2,
  "store-durable": 2,
  delivery: 2,
};

/** Bytes that a socket gives at a time, about. */
const chunkSize = 500_000;

/** `statfs` of Linux calls a file system in memory this. */
const tmpfsType = 0x01021994;

/** A folder for what is measured with, which goes at the end whatever happens. */
export class Scratch {
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
  get isMemory(): boolean {
    return process.platform === "linux" && statfsSync(this.path).type === tmpfsType;
  }

  remove(): void {
    process.off("exit", this.#remove);
    this.#remove();
  }
}

/** Measures steps with frames of one size. */
export class Bench {
  readonly #scratch: string;
  readonly #size: number;
  readonly #signal: AbortSignal;
  /** What compresses to nothing would flatter some file systems. */
  readonly #noise: Uint8Array;
  readonly #files: string;
  readonly #names: string[] = [];
  #stores = 0;

  /**
   * Makes its files.
   *
   * @throws {FramesError} `store`
   */
  constructor(scratch: Scratch, size: number, signal: AbortSignal) {
    this.#scratch = scratch.path;
    this.#size = size;
    this.#signal = signal;
    this.#noise = noise(size);
    this.#files = join(scratch.path, `frames-of-${size}`);
    const until = steadyNow() + passTime;
    try {
      mkdirSync(this.#files);
      while (this.#names.length < this.#most && steadyNow() < until) {
        const name = `${this.#names.length + 1}.raw`;
        writeFileSync(join(this.#files, name), this.#noise);
        this.#names.push(name);
      }
    } catch (error) {
      throw asFramesError(error, "store", `Cannot measure in ${scratch.path}`);
    }
  }

  get #most(): number {
    return Math.ceil(passBytes / this.#size);
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
      store: () => this.#store(false),
      "store-durable": () => this.#store(true),
      delivery: () => this.#deliver(),
    }[step];
    const began = steadyNow();
    let best: Measurement | undefined;
    let passes = 0;
    while (passes < mostPasses[step] && (passes === 0 || steadyNow() - began < stepTime)) {
      const { frames, seconds } = await pass();
      passes++;
      if (best === undefined || frames * best.seconds > best.frames * seconds) {
        best = { step, frameBytes: this.#size, frames, seconds };
      }
    }
    return best!;
  }

  /** Reads the files as `send` does. */
  async #read(): Promise<Pass> {
    const source = new DirectorySource("bench", this.#files, this.#names, () => {});
    const into = new Uint8Array(this.#size);
    try {
      return await this.#repeat(this.#names.length, async () => {
        const frame = source.next(false);
        if (frame === undefined) throw new FramesError("internal");
        if ("error" in frame) throw frame.error;
        if (frame.size <= largestPackedFrame) frame.read(into);
        else await readPieces(frame);
      });
    } finally {
      source.close();
    }
  }

  async #checksum(): Promise<Pass> {
    return await this.#repeat(this.#most, () => void crc32(this.#noise));
  }

  /** Stores frames as `serve` does that come in by the chunk. */
  async #store(durable: boolean): Promise<Pass> {
    const folder = join(this.#scratch, `store-${++this.#stores}`);
    const store = new DirectoryStore(folder, { portableNames: false, durable, clock: Date.now });
    try {
      return await this.#fill(store);
    } finally {
      store.close();
      rmSync(folder, { recursive: true, force: true, maxRetries: 3 });
    }
  }

  async #fill(store: FrameStore): Promise<Pass> {
    const session = crypto.randomUUID().replaceAll("-", "");
    const source = store.open({ stream: "bench", source: "bench", session });
    const outcomes: (Outcome | Promise<Outcome>)[] = [];
    let sequence = 0;
    const captured = BigInt(Date.now()) * 1_000_000n;
    const began = steadyNow();
    const { frames } = await this.#repeat(this.#most, () => {
      const name = `${++sequence}.raw`;
      const size = this.#size;
      const writer = source.begin({ name, sequence, captured, size, metadata: "" });
      for (let at = 0; at < size; at += chunkSize) {
        writer.write(this.#noise.subarray(at, Math.min(at + chunkSize, size)));
      }
      outcomes.push(writer.finish(0));
    });
    await store.flush();
    for (const outcome of await Promise.all(outcomes)) {
      if (outcome instanceof FramesError) throw outcome;
    }
    return { frames, seconds: (steadyNow() - began) / 1000 };
  }

  /** The whole way, with both ends in this process. */
  async #deliver(): Promise<Pass> {
    const folder = join(this.#scratch, `store-${++this.#stores}`);
    const server = await serve(folder, { listen: "127.0.0.1:0" });
    try {
      const began = steadyNow();
      const started = Date.now();
      const signal = AbortSignal.any([this.#signal, AbortSignal.timeout(passTime)]);
      const options = { to: server.address, stream: "bench", signal };
      const planned = await plan(this.#files, options, started);
      const { frames, undelivered } = await deliver(planned, options, started);
      this.#signal.throwIfAborted();
      if (undelivered[0] !== undefined) throw undelivered[0].error;
      return { frames, seconds: (steadyNow() - began) / 1000 };
    } finally {
      await server.stop();
      rmSync(folder, { recursive: true, force: true, maxRetries: 3 });
    }
  }

  /** Does something so many times, if there is time for it, and lets signals through now and then. */
  async #repeat(times: number, act: () => void | Promise<void>): Promise<Pass> {
    await turn();
    const began = steadyNow();
    let frames = 0;
    let turned = began;
    for (let now = began; frames < times && now - began < passTime; now = steadyNow()) {
      if (now - turned > 50) {
        await turn();
        turned = now;
      }
      this.#signal.throwIfAborted();
      await act();
      frames++;
    }
    return { frames, seconds: (steadyNow() - began) / 1000 };
  }

  /** Its files take no more room. */
  clear(): void {
    rmSync(this.#files, { recursive: true, force: true, maxRetries: 3 });
  }
}

interface Pass {
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
async function turn(): Promise<void> {
  await new Promise<void>((resolve) => setImmediate(resolve));
}
