/** Writer for a frame whose name is in the journal. */
import type { FrameDescription, FrameWriter, Outcome } from "../../frame.ts";
import { isIntact } from "./file-check.ts";
import {
  conflictError,
  hasSameBytes,
  movedAwayOutcome,
  type StoredFrameInfo,
} from "../conflict.ts";
import { flushExisting, type FrameDestination } from "./partial-file.ts";
import { toStoreError } from "./store-error.ts";

/**
 * Writes nothing. Compares the frame's size and CRC-32 with the stored frame. If the sender wants
 * stored bytes verified, the stored file is read too.
 */
export class ExistingFileWriter implements FrameWriter {
  readonly #destination: FrameDestination;
  readonly #description: FrameDescription;
  readonly #stored: StoredFrameInfo;

  constructor(
    destination: FrameDestination,
    description: FrameDescription,
    stored: StoredFrameInfo,
  ) {
    this.#destination = destination;
    this.#description = description;
    this.#stored = stored;
  }

  write(): void {}

  finish(crc: number): Outcome {
    try {
      return this.#finish(crc);
    } catch (error) {
      const what = `Cannot compare with ${JSON.stringify(this.#description.name)}`;
      throw toStoreError(error, what, this.#destination.root);
    }
  }

  #finish(crc: number): Outcome {
    const { sourceInfo, folder, nameIndex } = this.#destination;
    const { name, sequence } = this.#description;
    nameIndex.markAccounted(sourceInfo, sequence);
    if (!hasSameBytes(this.#stored, this.#description, crc)) return conflictError();
    const mayDelete = sourceInfo.verifyStored === true;
    const kind = folder.entryKind(name);
    if (kind === undefined) {
      const isOwn = this.#stored.session === sourceInfo.session && this.#stored.seq === sequence;
      nameIndex.confirm(sourceInfo, this.#description, this.#stored);
      return movedAwayOutcome(sourceInfo, isOwn, mayDelete);
    }
    const path = folder.pathOf(name);
    if (mayDelete && !(kind === "file" && isIntact(path, this.#stored))) return conflictError();
    if (kind === "file") flushExisting(this.#destination, path);
    nameIndex.confirm(sourceInfo, this.#description, this.#stored);
    return "present";
  }

  discard(): void {}
}
