/** Losses that the server was told of: LOST has no reply (SPEC section 8). */
import type { Loss } from "../frame.ts";
import type { Outlet } from "./outlet.ts";

interface Told {
  readonly outlet: Outlet;
  readonly loss: Loss;
  /** Frames that had ended when it was told: a receipt for a later one covers it. */
  readonly after: number;
}

/** What one connection told, as long as the server may not have recorded it. */
export class ToldLosses {
  #told: Told[] = [];

  add(outlet: Outlet, loss: Loss, after: number): void {
    this.#told.push({ outlet, loss, after });
  }

  /** The first `frames` frames that ended are settled. */
  settle(frames: number): void {
    const open = this.#told.findIndex(({ after }) => after >= frames);
    this.#told = open < 0 ? [] : this.#told.slice(open);
  }

  /** The connection broke: what may not have been recorded is told again on the next. */
  abandon(): void {
    for (const { outlet, loss } of this.#told) outlet.losses.push(loss);
  }
}
