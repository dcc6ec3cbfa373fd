/** A frame too large for one message, sent in pieces. */
import { crc32 } from "../common/checksum.ts";
import { FramesError } from "../errors.ts";
import type { Frame } from "../frame.ts";

/** One piece of a frame, ready to be sent. */
export interface Piece {
  readonly bytes: Uint8Array;
  /** CRC-32 of the frame's payload up to the end of this piece. */
  readonly crc: number;
  /** Whether more pieces follow. */
  readonly more: boolean;
}

/** Reads the pieces of a large frame, one piece ahead of what is sent. */
export class LargeFrame {
  readonly frame: Frame;
  readonly #pieces: AsyncIterator<Uint8Array, undefined>;
  readonly #onReady: () => void;
  #sent = 0;
  #crc = 0;
  /** The bytes read but not yet sent. */
  #readAhead: Uint8Array | undefined;
  #failure: FramesError | undefined;

  /** @param onReady called when a piece is ready or reading has failed */
  constructor(frame: Frame, onReady: () => void) {
    this.frame = frame;
    this.#onReady = onReady;
    this.#pieces = frame.pieces();
    this.#read();
  }

  /** Payload bytes sent so far. */
  get sent(): number {
    return this.#sent;
  }

  /** CRC-32 of the payload sent so far. */
  get crc(): number {
    return this.#crc;
  }

  /** Why reading failed; the frame must be aborted. */
  get failure(): FramesError | undefined {
    return this.#failure;
  }

  get isReady(): boolean {
    return this.#readAhead !== undefined;
  }

  #read(): void {
    this.#pieces.next().then(
      ({ value }) => {
        const remaining = this.frame.size - this.#sent;
        if (value !== undefined && value.length > 0 && value.length <= remaining) {
          this.#readAhead = value;
        } else {
          this.#failure = new FramesError("changed", "its size changed while it was read");
        }
        this.#onReady();
      },
      (error: unknown) => {
        this.#failure =
          error instanceof FramesError
            ? error
            : new FramesError("unreadable", undefined, { cause: error });
        this.#onReady();
      },
    );
  }

  /** Returns the next piece, of at most `maxBytes`. Requires `isReady`. */
  nextPiece(maxBytes: number): Piece {
    const available = this.#readAhead!;
    const bytes = available.subarray(0, maxBytes);
    this.#readAhead =
      bytes.length < available.length ? available.subarray(bytes.length) : undefined;
    this.#sent += bytes.length;
    this.#crc = crc32(bytes, this.#crc);
    const more = this.#sent < this.frame.size;
    if (more && this.#readAhead === undefined) this.#read();
    return { bytes, crc: this.#crc, more };
  }

  /** Closes the underlying file or stream. */
  close(): void {
    // An error on close is ignored, because the frame was sent or aborted before.
    void this.#pieces.return?.().catch(() => {});
  }
}
