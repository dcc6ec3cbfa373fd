/** A frame of a store, as its row in the journal describes it. */
import type { Frame, FramePieces } from "../../frame.ts";
import type { FrameRecord } from "../../store/journal/journal-reader.ts";

export abstract class JournaledFrame implements Frame {
  readonly record: FrameRecord;

  constructor(record: FrameRecord) {
    this.record = record;
  }

  get name(): string {
    return this.record.name;
  }

  get sequence(): number {
    return this.record.sequence;
  }

  get captured(): bigint {
    return this.record.captured;
  }

  get size(): number {
    return this.record.size;
  }

  get metadata(): string {
    return this.record.metadata;
  }

  get isKey(): boolean | undefined {
    return this.record.isKey;
  }

  abstract read(into: Uint8Array): void;

  abstract pieces(): FramePieces;

  /** Returns the first bytes of a picture; `undefined` if they cannot be read now. */
  abstract readHead(): Uint8Array | undefined;
}
