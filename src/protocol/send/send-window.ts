/** Frames in flight, counted against the window that the receiver granted (SPEC section 6). */
import { countBegunFrame } from "../../common/compilation.ts";
import type { Frame } from "../../frame.ts";
import type { Welcome } from "../../wire/messages.ts";

/** A frame in flight, and the source or position it belongs to. */
export interface UnsettledFrame<Owner, Item = Frame> {
  readonly owner: Owner;
  readonly frame: Item;
  /** CRC-32 of the payload sent. */
  readonly crc: number;
  readonly isAborted: boolean;
  /** Whether REFUSED was received for it. */
  isRefused: boolean;
}

/** Upper bound of the granted frames, because every frame in flight is kept in memory. */
const maxFrames = 32_768;

/** Frames from their first message until a receipt counts them. */
export class SendWindow<Owner, Item extends Pick<Frame, "size" | "sequence"> = Frame> {
  readonly #maxBytes: number;
  readonly #maxFrames: number;
  /** Ended frames in order of their end; the first `#head` are settled. */
  readonly #endedFrames: UnsettledFrame<Owner, Item>[] = [];
  /** Settled entries at the start of `#endedFrames`, removed in batches. */
  #head = 0;
  #chargedBytes = 0;
  #chargedFrames = 0;
  #endedCount = 0;
  #settledCount = 0;

  constructor(grant: Welcome["window"]) {
    this.#maxBytes = grant.bytes;
    this.#maxFrames = Math.min(grant.frames, maxFrames);
  }

  /** Frames that have ended. */
  get ended(): number {
    return this.#endedCount;
  }

  get settled(): number {
    return this.#settledCount;
  }

  /**
   * Bytes that a frame takes from the window: at most half of it, so that every frame fits (SPEC
   * section 6).
   */
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
    countBegunFrame();
    this.#chargedBytes += this.#charge(frame);
    this.#chargedFrames++;
  }

  /** @param crc CRC-32 of the payload sent */
  end(owner: Owner, frame: Item, crc: number, isAborted: boolean, isRefused = false): void {
    this.#endedCount++;
    this.#endedFrames.push({ owner, frame, crc, isAborted, isRefused });
  }

  /** Returns ended frames without a receipt, in the order in which they ended. */
  unsettled(): readonly UnsettledFrame<Owner, Item>[] {
    return this.#endedFrames.slice(this.#head);
  }

  /**
   * Settles the oldest unsettled frame and returns it. Returns `undefined` once `count` of the ended
   * frames are settled.
   */
  settleNext(count: number): UnsettledFrame<Owner, Item> | undefined {
    if (this.#settledCount < count) {
      this.#settledCount++;
      const entry = this.#endedFrames[this.#head++]!;
      this.#chargedBytes -= this.#charge(entry.frame);
      this.#chargedFrames--;
      return entry;
    }
    // Entries are removed in batches, because removing them one by one takes quadratic time.
    if (this.#head * 2 >= this.#endedFrames.length) {
      this.#endedFrames.splice(0, this.#head);
      this.#head = 0;
    }
    return undefined;
  }

  /**
   * Returns an unsettled frame by owner and sequence number. Prefers frames that were not refused,
   * then frames that were sent completely.
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

  /** Returns an unsettled frame with this number that was not refused, of any owner. */
  findUnrefused(sequence: number): UnsettledFrame<Owner, Item> | undefined {
    for (let index = this.#head; index < this.#endedFrames.length; index++) {
      const entry = this.#endedFrames[index]!;
      if (entry.frame.sequence === sequence && !entry.isRefused) return entry;
    }
    return undefined;
  }
}
