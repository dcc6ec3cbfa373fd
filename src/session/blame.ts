/** Which frame came damaged, for one that does so again and again is to be reported. */
import type { Frame } from "../frame.ts";
import type { OutgoingSource } from "../protocol/send/outgoing-source.ts";

/** The frame that ended a connection because its bytes came damaged, if one did. */
export class SuspectFrame {
  #source: OutgoingSource | undefined;
  #sequence = 0;

  /** It was this one. */
  set(source: OutgoingSource | undefined, sequence: number): void {
    this.#source = source;
    this.#sequence = sequence;
  }

  /** Once everything is back in its outlets: takes the frame out that is to be sent no more. */
  removeIfRepeated(): { source: OutgoingSource; frame: Frame } | undefined {
    const source = this.#source;
    if (source === undefined) return undefined;
    const { candidates } = source;
    const index = candidates.findIndex(({ frame }) => frame.sequence === this.#sequence);
    if (index < 0 || !source.countDamage(this.#sequence)) return undefined;
    const [candidate] = candidates.splice(index, 1);
    return { source, frame: candidate!.frame };
  }
}
