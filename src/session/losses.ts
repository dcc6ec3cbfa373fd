/** Losses that the server is told of: LOST has no reply (SPEC section 8). */
import type { Loss } from "../frame.ts";
import type { LostRange, Outlet } from "./outlet.ts";

interface Told {
  readonly outlet: Outlet;
  readonly range: LostRange;
  /** Frames that had ended when it was told: a receipt for a later one covers it. */
  readonly after: number;
}

/** The losses of one connection, as long as the server may not have recorded them. */
export class Losses {
  #waiting: { outlet: Outlet; range: LostRange }[] = [];
  #told: Told[] = [];
  /** Whether the last one that waits may still grow: what was told before must be repeated as it was. */
  #isOpen = false;

  /** Numbers of `outlet` are lost. */
  add(outlet: Outlet, { first, last, error }: Loss): void {
    const { error: code, message: why } = error.reason;
    const before = this.#isOpen ? this.#waiting.at(-1) : undefined;
    if (
      before?.outlet === outlet &&
      before.range.last === first - 1 &&
      before.range.error === code &&
      before.range.why === why
    ) {
      before.range.last = last;
      return;
    }
    this.#waiting.push({ outlet, range: { first, last, error: code, why } });
    this.#isOpen = true;
  }

  /** What was told on a connection before, and must be told again. */
  repeat(outlet: Outlet, range: LostRange): void {
    this.#waiting.push({ outlet, range });
    this.#isOpen = false;
  }

  /**
   * What is to be told now.
   *
   * @param ended frames that ended so far
   */
  take(ended: number): readonly { outlet: Outlet; range: LostRange }[] {
    if (this.#waiting.length === 0) return this.#waiting;
    const taken = this.#waiting;
    this.#waiting = [];
    for (const one of taken) this.#told.push({ ...one, after: ended });
    return taken;
  }

  /** The first `frames` frames that ended are settled. */
  settle(frames: number): void {
    if (this.#told.length === 0) return;
    const open = this.#told.findIndex(({ after }) => after >= frames);
    this.#told = open < 0 ? [] : this.#told.slice(open);
  }

  /** The connection broke: what may not have been recorded is told again on the next. */
  abandon(): void {
    for (const { outlet, range } of [...this.#told, ...this.#waiting]) outlet.losses.push(range);
  }
}
