/** A frame that comes although its name is taken. */
import type { FrameDescription, FrameWriter, Outcome } from "../frame.ts";
import { isIntact } from "./content.ts";
import type { StoredFrame } from "./journal.ts";
import { conflict, type Destination, isSame } from "./partial.ts";

/** A frame whose name is in the journal: nothing is written, only compared. */
export class Comparison implements FrameWriter {
  readonly #destination: Destination;
  readonly #description: FrameDescription;
  readonly #stored: StoredFrame;

  constructor(destination: Destination, description: FrameDescription, stored: StoredFrame) {
    this.#destination = destination;
    this.#description = description;
    this.#stored = stored;
  }

  write(): void {}

  finish(crc: number): Outcome {
    const { origin, folder, register, found } = this.#destination;
    register.account(origin, this.#description.sequence);
    if (!isSame(this.#stored, this.#description, crc)) return conflict();
    const { name } = this.#description;
    const isThere = folder.look(name) === "file";
    const path = folder.pathOf(name);
    if (origin.proven === true && !(isThere && isIntact(path, this.#stored))) return conflict();
    if (isThere) found(path);
    return "present";
  }

  discard(): void {}
}
