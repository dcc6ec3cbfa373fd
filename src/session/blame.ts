/** Which frame came damaged, for one that does so again and again is to be reported. */
import type { Frame } from "../frame.ts";
import type { Outlet } from "./outlet.ts";

/** The frame that ended a connection because its bytes came damaged, if one did. */
export class Blame {
  #outlet: Outlet | undefined;
  #sequence = 0;

  /** It was this one. */
  put(outlet: Outlet | undefined, sequence: number): void {
    this.#outlet = outlet;
    this.#sequence = sequence;
  }

  /** Once everything is back in its outlets: takes the frame out that is to be sent no more. */
  take(): { outlet: Outlet; frame: Frame } | undefined {
    const outlet = this.#outlet;
    if (outlet === undefined) return undefined;
    const { candidates } = outlet;
    const index = candidates.findIndex(({ frame }) => frame.sequence === this.#sequence);
    if (index < 0 || !outlet.damaged(this.#sequence)) return undefined;
    const [candidate] = candidates.splice(index, 1);
    return { outlet, frame: candidate!.frame };
  }
}
