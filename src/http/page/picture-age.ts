/** Tells how current the picture of a live source is. */
import type { LiveJson } from "./api.ts";
import { displayDuration, parseNanoseconds, toMilliseconds } from "./format.ts";

/** Time without a frame after which a source is shown as still, or its picture as behind. */
const stillTimeoutMs = 3_000;

/** Time after which a rate is not that of the present. The server's is over five seconds. */
const rateTimeoutMs = 10_000;

/** Why pictures stand still although their source may go on. */
export type Standstill = "paused" | "no connection";

/** `held` if the picture is not the newest, `still` if the source sends nothing. */
export type PictureStateKind = "live" | "held" | "still";

export interface PictureState {
  readonly kind: PictureStateKind;
  readonly text: string;
}

export class PictureAge {
  /** Why the picture stands still; undefined if new frames are shown as they come. */
  standstill: Standstill | undefined;
  /** When the server received the frame shown, in ns since 1970. */
  shownReceived: bigint | undefined;
  #latest: LiveJson | undefined;
  #now = 0;

  /** @param now server's time in ms since 1970 */
  update(latest: LiveJson, now: number): void {
    this.#latest = latest;
    this.#now = now;
  }

  get state(): PictureState {
    if (this.standstill !== undefined) return { kind: "held", text: this.standstill };
    if (this.#latest === undefined) return { kind: "still", text: "not live" };
    const received = parseNanoseconds(this.#latest.received);
    const shown = this.shownReceived;
    if (shown === undefined) return { kind: "held", text: "no picture yet" };
    const lag = received === undefined ? 0 : toMilliseconds(received - shown);
    if (this.#latest.ended && lag <= 0) return { kind: "still", text: "ended" };
    if (lag > stillTimeoutMs) return { kind: "held", text: `${displayDuration(lag)} behind` };
    const age = received === undefined ? 0 : this.#now - toMilliseconds(received);
    const isStill = age > (this.#latest.rate === 0 ? stillTimeoutMs : rateTimeoutMs);
    if (isStill) return { kind: "still", text: `no frame for ${displayDuration(age)}` };
    return { kind: "live", text: "live" };
  }
}
