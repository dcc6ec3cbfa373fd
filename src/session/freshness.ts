/**
 * How much of a live source may be under way (SPEC section 6): as many frames as were confirmed in the last
 * quarter of a second, at least one. A link with deep buffers would take minutes of them, and show the past.
 */
const recent = 250;

/** A receiver whose receipts are further apart would have a link fill up. */
const mostApart = 5000;

/** What counts as recent where receipts are so many milliseconds apart, as WELCOME says. */
export function recentWith(receipts: number | undefined): number {
  return recent + Math.min(receipts ?? 0, mostApart);
}

export class Freshness {
  #underWay = 0;
  /** When frames were confirmed, in milliseconds; older ones are cut off. */
  #confirmed: number[] = [];

  /** Whether another frame may begin. */
  mayBegin(now: number, within = recent): boolean {
    const old = this.#confirmed.findIndex((at) => now - at <= within);
    this.#confirmed = old < 0 ? [] : old === 0 ? this.#confirmed : this.#confirmed.slice(old);
    return this.#underWay < Math.max(1, this.#confirmed.length);
  }

  begin(): void {
    this.#underWay++;
  }

  /** A frame was settled. */
  settle(now: number): void {
    this.#underWay--;
    this.#confirmed.push(now);
  }

  /** The connection broke: nothing is under way any more. */
  abandon(): void {
    this.#underWay = 0;
    this.#confirmed = [];
  }
}
