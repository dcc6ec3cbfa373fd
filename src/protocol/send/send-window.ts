/** What is under way: frames that were begun and that no receipt has counted (SPEC section 6). */
import type { Frame } from "../../frame.ts";
import type { Welcome } from "../../wire/messages.ts";

/** A frame under way, and whose it is. */
export interface UnsettledFrame<Owner, Item = Frame> {
  readonly owner: Owner;
  readonly frame: Item;
  /** CRC-32 of what was sent. */
  readonly crc: number;
  readonly isAborted: boolean;
  /** Whether its refusal was told. */
  isRefused: boolean;
}

/** What is under way is remembered, so a server cannot grant more than this. */
const maxFrames = 32_768;

/** Counts what is under way against the window that the receiver granted. */
export class SendWindow<Owner, Item extends Pick<Frame, "size" | "sequence"> = Frame> {
  readonly #maxBytes: number;
  readonly #maxFrames: number;
  /** Frames that ended, in the order in which they did. */
  readonly #endedFrames: UnsettledFrame<Owner, Item>[] = [];
  /** Entries of `#ended` that are settled already, cut off in batches. */
  #head = 0;
  #chargedBytes = 0;
  #chargedFrames = 0;
  #endedCount = 0;
  #settledCount = 0;

  constructor(grant: Welcome["window"]) {
    this.#maxBytes = grant.bytes;
    this.#maxFrames = Math.min(grant.frames, maxFrames);
  }

  /** Frames that ended, and of these the settled ones. */
  get ended(): number {
    return this.#endedCount;
  }

  get settled(): number {
    return this.#settledCount;
  }

  /** A frame counts with at most half of the window, so that one always fits. */
  #charge(frame: Item): number {
    return Math.min(frame.size, Math.floor(this.#maxBytes / 2));
  }

  fits(frame: Item): boolean {
    return (
      this.#chargedFrames < this.#maxFrames &&
      this.#chargedBytes + this.#charge(frame) <= this.#maxBytes
    );
  }

  begin(frame: Item): void {
    this.#chargedBytes += this.#charge(frame);
    this.#chargedFrames++;
  }

  /** @param crc CRC-32 of what was sent */
  end(owner: Owner, frame: Item, crc: number, isAborted: boolean, isRefused = false): void {
    this.#endedCount++;
    this.#endedFrames.push({ owner, frame, crc, isAborted, isRefused });
  }

  /** What ended and is not settled, in the order in which it ended. */
  unsettled(): readonly UnsettledFrame<Owner, Item>[] {
    return this.#endedFrames.slice(this.#head);
  }

  /** The first `count` frames that ended are settled: yields those that were not before. */
  *ack(count: number): Generator<UnsettledFrame<Owner, Item>> {
    for (; this.#settledCount < count; this.#settledCount++) {
      const entry = this.#endedFrames[this.#head++]!;
      this.#chargedBytes -= this.#charge(entry.frame);
      this.#chargedFrames--;
      yield entry;
    }
    // A queue with a head: cutting off one by one would cost the square of its length.
    if (this.#head * 2 >= this.#endedFrames.length) {
      this.#endedFrames.splice(0, this.#head);
      this.#head = 0;
    }
  }

  /**
   * The frame of `owner` with this number that ended and is not settled: rather one that was not refused yet
   * than one that was, and rather one that was sent whole than one aborted.
   */
  find(owner: Owner, sequence: number): UnsettledFrame<Owner, Item> | undefined {
    let found: UnsettledFrame<Owner, Item> | undefined;
    const rankOf = ({ isRefused, isAborted }: UnsettledFrame<Owner, Item>) =>
      2 * Number(isRefused) + Number(isAborted);
    for (let index = this.#head; index < this.#endedFrames.length; index++) {
      const entry = this.#endedFrames[index]!;
      if (entry.owner !== owner || entry.frame.sequence !== sequence) continue;
      if (found === undefined || rankOf(entry) < rankOf(found)) found = entry;
    }
    return found;
  }

  /** Any frame with this number that ended, is not settled, and of which no refusal was told. */
  findUnrefused(sequence: number): UnsettledFrame<Owner, Item> | undefined {
    for (let index = this.#head; index < this.#endedFrames.length; index++) {
      const entry = this.#endedFrames[index]!;
      if (entry.frame.sequence === sequence && !entry.isRefused) return entry;
    }
    return undefined;
  }
}
