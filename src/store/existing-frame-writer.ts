/** Writer for a frame whose name is in the journal, for a store of any kind. */
import type { FrameWriter, Outcome } from "../frame.ts";

/** Writes nothing. Compares the frame with the stored one at its end. */
export class ExistingFrameWriter implements FrameWriter {
  readonly finish: (crc32: number) => Outcome | Promise<Outcome>;

  /** @param compare returns the outcome of a frame with this CRC-32 */
  constructor(compare: (crc32: number) => Outcome | Promise<Outcome>) {
    this.finish = compare;
  }

  write(): void {}

  discard(): void {}
}
