/** A frame sent in pieces. */
import { crc32 } from "../common/checksum.ts";
import { FramesError } from "../errors.ts";
import type { Frame, FramePieces } from "../frame.ts";

/** One piece of a frame, ready to be sent. */
export interface Piece {
  readonly bytes: Uint8Array;
  /** CRC-32 of the frame's payload up to the end of this piece. */
  readonly crc: number;
  /** Whether more pieces follow. */
  readonly more: boolean;
  /** Whether the bytes were read into the buffer of the caller. */
  readonly isInBuffer: boolean;
}

/**
 * Reads the pieces of a frame. Reads them when they are sent while their bytes are at hand, and else
 * one piece ahead.
 */
export class LargeFrame {
  readonly frame: Frame;
  readonly #pieces: FramePieces;
  readonly #onReady: () => void;
  #sent = 0;
  #crc = 0;
  /** Whether the next bytes may be at hand. */
  #mayReadNow: boolean;
  /** The bytes read ahead but not yet sent. */
  #readAhead: Uint8Array | undefined;
  #failure: FramesError | undefined;

  /** @param onReady called when a piece was read ahead or reading has failed */
  constructor(frame: Frame, onReady: () => void) {
    this.frame = frame;
    this.#onReady = onReady;
    this.#pieces = frame.pieces();
    this.#mayReadNow = this.#pieces.readNow !== undefined;
    if (!this.#mayReadNow) this.#read();
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

  /** Whether to call `nextPiece`. */
  get isReady(): boolean {
    return this.#mayReadNow || this.#readAhead !== undefined;
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
        this.#failure = toReadFailure(error);
        this.#onReady();
      },
    );
  }

  /**
   * Returns the next piece, of at most `maxBytes`. Requires `isReady`. Returns `undefined` if reading
   * failed, or goes on ahead of what is sent.
   *
   * @param buffer for a piece whose bytes are at hand
   */
  nextPiece(buffer: Uint8Array, maxBytes: number): Piece | undefined {
    const ahead = this.#readAhead;
    if (ahead === undefined) return this.#readPiece(buffer);
    const bytes = ahead.subarray(0, maxBytes);
    this.#readAhead = bytes.length < ahead.length ? ahead.subarray(bytes.length) : undefined;
    const piece = this.#toPiece(bytes, false);
    if (piece.more && this.#readAhead === undefined) this.#read();
    return piece;
  }

  #readPiece(buffer: Uint8Array): Piece | undefined {
    try {
      const count = this.#pieces.readNow!(buffer);
      if (count > 0) return this.#toPiece(buffer.subarray(0, count), true);
      this.#mayReadNow = false;
      this.#read();
    } catch (error) {
      this.#mayReadNow = false;
      this.#failure = toReadFailure(error);
    }
    return undefined;
  }

  #toPiece(bytes: Uint8Array, isInBuffer: boolean): Piece {
    this.#sent += bytes.length;
    this.#crc = crc32(bytes, this.#crc);
    return { bytes, crc: this.#crc, more: this.#sent < this.frame.size, isInBuffer };
  }

  /** Closes the underlying file or stream. */
  close(): void {
    // An error on close is ignored, because the frame was sent or aborted before.
    void this.#pieces.return?.().catch(() => {});
  }
}

function toReadFailure(error: unknown): FramesError {
  if (error instanceof FramesError) return error;
  return new FramesError("unreadable", undefined, { cause: error });
}
