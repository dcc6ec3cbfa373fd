// What one sender of a chaos run delivers: frames with unique content, generated from a seed.

import { createCipheriv } from "node:crypto";

import type { Random } from "../wire/fuzz.ts";
import type { Sender } from "./sender.ts";

const mebibyte = 2 ** 20;
const zeros = new Uint8Array(2.5 * mebibyte);

/** A frame that a sender has to deliver. */
export interface ChaosFrame {
  readonly source: string;
  readonly name: string;
  readonly size: number;
  readonly crc32: number;
  /** Nanoseconds since 1970; `undefined` if only the sender knows it. */
  readonly captured?: bigint;
}

/** Row of the journal for a frame, and one for lost frames. */
export interface FrameRow {
  readonly source: string;
  readonly name: string;
  readonly session: string;
  readonly seq: bigint;
  readonly bytes: bigint;
  readonly crc32: bigint;
  readonly captured: bigint;
}
export interface LossRow {
  readonly session: string;
  readonly first: bigint;
  readonly last: bigint;
  readonly reason: string;
  readonly name: string | null;
}

/** Returns the key of a frame in its stream, `SOURCE/NAME`. */
export function keyOf({ source, name }: Pick<ChaosFrame, "source" | "name">): string {
  return `${source}/${name}`;
}

/** The frames of one stream, and the command that sends them. */
export abstract class Scenario {
  abstract readonly stream: string;
  /** Whether the sender reads frames from its standard input. */
  readonly hasInput: boolean = false;
  /** Frames by key. */
  readonly frames = new Map<string, ChaosFrame>();
  /** Frames made so far, and their bytes. */
  made = 0;
  bytes = 0;
  protected readonly random: Random;
  readonly #key: Uint8Array;

  constructor(random: Random) {
    this.random = random;
    this.#key = random.bytes(16);
  }

  /** Arguments of `frames send`, for the next process. */
  abstract args(): string[];

  /** Adds frames to those that the next `attend` or process delivers. */
  abstract add(count: number): void;

  /** Makes frames while a sender runs, and ends it when it has delivered all of them. */
  async attend(_sender: Sender): Promise<void> {}

  /** Called with each line of a sender. */
  onLine(_line: string): void {}

  /** Called when a sender has ended, with its exit status; `undefined` if it was killed. */
  onEnded(_code: number | undefined): void {}

  /** Called before each look at the store. Returns keys of frames that it must have by now. */
  newlyDue(): string[] {
    return [];
  }

  /** Returns the frame that is stored under `key`, in the file at `path`. */
  frameAt(key: string, _path: string): ChaosFrame | undefined {
    return this.frames.get(key);
  }

  /** Returns whether the file of a frame may have other bytes now, or none. */
  isUnsettled(_key: string): boolean {
    return false;
  }

  /** Returns whether the file of a frame may be unknown to the journal at the end. */
  mayBeUnknown(_key: string, _losses: readonly LossRow[]): boolean {
    return false;
  }

  /** Returns whether a frame of this key can be sent, and whether also after its receipt. */
  maySend(key: string): boolean {
    return this.frames.has(key);
  }
  mayRepeat(_key: string): boolean {
    return false;
  }

  /** Returns whether a sender may report the loss or refusal in `line`. */
  mayFail(_line: string): boolean {
    return false;
  }

  /** Returns whether a sender that ends with this exit status has delivered all frames. */
  isComplete(code: number): boolean {
    return code === 0;
  }

  /** Returns what is wrong at the end, given all rows of the stream. */
  faults(_rows: readonly FrameRow[], losses: readonly LossRow[]): string[] {
    return losses.map((loss) => `the journal has a loss: ${Bun.inspect(loss)}`);
  }

  /** Returns content that is unique to a frame at every offset. */
  protected makeContent(size: number): Uint8Array {
    const start = Buffer.alloc(16);
    start.writeUInt32BE(++this.made);
    this.bytes += size;
    return createCipheriv("aes-128-ctr", this.#key, start).update(zeros.subarray(0, size));
  }

  /** Mostly small, because all frames must fit on a small disk. */
  protected pickSize(): number {
    const which = this.random.below(10_000);
    if (which < 200) return 0;
    if (which < 400) return 1;
    if (which < 450) return 100_000 + this.random.below(200_000);
    if (which < 453) return this.pickLargeSize();
    return 1000 + Math.floor((this.random.below(1000) / 1000) ** 2 * 7000);
  }

  /** Returns the size of a frame that is sent in pieces. */
  protected pickLargeSize(): number {
    return mebibyte + 1 + this.random.below(1.5 * mebibyte);
  }
}
