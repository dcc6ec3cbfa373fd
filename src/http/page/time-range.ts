/** The time that a timeline has, and the part of it that is visible. In ns since 1970. */

/** Shortest visible time. */
const minLength = 10_000_000n;

export class TimeRange {
  #first = 0n;
  #last = 1n;
  #from = 0n;
  #to = 1n;

  get first(): bigint {
    return this.#first;
  }

  get from(): bigint {
    return this.#from;
  }

  get to(): bigint {
    return this.#to;
  }

  get #isWhole(): boolean {
    return this.#from === this.#first && this.#to === this.#last;
  }

  /** Sets the whole time. Keeps the visible part unless it was the whole. */
  setWhole(first: bigint, last: bigint): void {
    const wasWhole = this.#isWhole;
    this.#first = first;
    this.#last = last;
    if (wasWhole) this.showAll();
    else this.#moveTo(this.#from, this.#to - this.#from);
  }

  showAll(): void {
    this.#from = this.#first;
    this.#to = this.#last;
  }

  /** Multiplies the visible time by `factor`. The time `around` stays where it is, if it can. */
  zoom(factor: number, around: bigint): void {
    const before = this.#to - this.#from;
    const length = BigInt(Math.round(Number(before) * factor));
    if (length >= this.#last - this.#first) return this.showAll();
    const kept = length < minLength ? minLength : length;
    const isVisible = around >= this.#from && around <= this.#to;
    const share = isVisible ? Number(around - this.#from) / Number(before) : 0.5;
    this.#moveTo(around - BigInt(Math.round(Number(kept) * share)), kept);
  }

  /** Moves the visible part by a share of its length. */
  shift(share: number): void {
    const length = this.#to - this.#from;
    this.#moveTo(this.#from + BigInt(Math.round(Number(length) * share)), length);
  }

  /** Puts a time that is not visible in the middle. Returns whether it had to. */
  centreIfOutside(at: bigint): boolean {
    if (at >= this.#from && at <= this.#to) return false;
    const length = this.#to - this.#from;
    this.#moveTo(at - length / 2n, length);
    return true;
  }

  /** Returns how far a time is from the start of the visible part, as a share of its length. */
  shareOf(at: bigint): number {
    return Number(at - this.#from) / Number(this.#to - this.#from);
  }

  /** Returns the time at a share of the visible part. Shares outside are those of its ends. */
  timeAt(share: number): bigint {
    const within = Math.max(0, Math.min(1, share));
    return this.#from + BigInt(Math.round(Number(this.#to - this.#from) * within));
  }

  #moveTo(from: bigint, length: bigint): void {
    const latest = this.#last - length;
    const start = from > latest ? latest : from;
    this.#from = start < this.#first ? this.#first : start;
    const end = this.#from + length;
    this.#to = end > this.#last ? this.#last : end;
  }
}
