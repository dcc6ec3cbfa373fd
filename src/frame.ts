/**
 * Frames, and the interfaces of frame sources and frame stores, shared by all parts of `frames`.
 */
import type { FramesError } from "./errors.ts";

/** Description of a frame on the wire and in the journal. */
export interface FrameDescription {
  /** File name, a single path part. */
  readonly name: string;
  /** Sequence number from 1, unique within session and source. */
  readonly sequence: number;
  /** Capture time in ns since 1970. */
  readonly captured: bigint;
  /** Size in bytes. */
  readonly size: number;
  /** JSON object as text, or empty. */
  readonly metadata: string;
  /**
   * Whether a decoder can begin with it, if the frame is a picture of encoded video. `undefined` for
   * other frames.
   */
  readonly isKey?: boolean | undefined;
}

/** A frame whose bytes can be read, and read again after a connection broke. */
export interface Frame extends FrameDescription {
  /**
   * Whether it replaces a frame that the same session sent under its name before; `undefined` if
   * there is none.
   */
  readonly revises?: boolean | undefined;
  /** Its shape if it is raw; `undefined` for the shape of its source, if that has one. */
  readonly raw?: RawShape | undefined;
  /**
   * Whether the frame is read by `pieces` even if it fits into one message, because `read` may block
   * for long.
   */
  readonly needsPieces?: boolean;
  /**
   * Reads the whole frame into `into`, which is `size` bytes long.
   *
   * @throws {FramesError} `changed`, `vanished` or `unreadable`; the contents of `into` are then
   * invalid
   */
  read(into: Uint8Array): void;
  /**
   * Reads the frame in order, in pieces of up to about 1 MiB. The last piece is returned only after checking that the frame has not changed meanwhile.
   *
   * @throws {FramesError} `changed`, `vanished` or `unreadable`
   */
  pieces(): FramePieces;
}

/** The pieces of one frame, in order. */
export interface FramePieces extends AsyncIterator<Uint8Array, undefined> {
  /**
   * Reads the next bytes into `into` and returns their number. Returns 0 if that may block for long;
   * `next` must be used from then on. Frames whose bytes are never at hand lack this method.
   *
   * @throws {FramesError} as `next`
   */
  readNow?(into: Uint8Array): number;
}

/** A frame that cannot be removed yet. */
export interface Postponed {
  /** Milliseconds after which to try again. */
  readonly delayMs: number;
  /** Why it is left, if it is not tried again. */
  readonly error: FramesError;
}

/** Consecutive sequence numbers that will never be sent, and why. */
export interface Loss {
  readonly first: number;
  readonly last: number;
  /** Name of the lost frame, for messages. */
  readonly what: string;
  /** Name under which the frame may be sent later, if that can be. */
  readonly name?: string | undefined;
  readonly error: FramesError;
}

/** Width, height and pixel format of raw frames, which have no header. */
export interface RawShape {
  readonly width: number;
  readonly height: number;
  /** Pixel format as named by ffmpeg, such as `gray16le`. */
  readonly format: string;
}

/** Provides the frames of one source. */
export interface FrameSource {
  /** Name of the source: path parts joined by `/`. */
  readonly name: string;
  /** Media type of the frames, if all have the same. */
  readonly type?: string | undefined;
  /** Shape of raw frames that have none of their own. */
  readonly raw?: RawShape | undefined;
  /** Frames in total, if known; used for progress only. */
  readonly total?: number | undefined;
  /** Sequence numbers assigned so far, if the source captures ahead of `next`. */
  readonly capturedCount?: number;
  /** Pictures of encoded video that may be damaged, because others were dropped before them. */
  readonly maybeDamagedCount?: number;
  /** Losses that `next` has not returned yet. */
  readonly unreportedLosses?: readonly Loss[];
  /**
   * Whether an earlier delivery may have sent its frames. If so, frames are offered before they are
   * sent.
   */
  readonly isResumable?: boolean;
  /** Whether frames are sent as they are captured, so that their delay is measured. */
  readonly isLive?: boolean | undefined;
  /** Whether the frames in flight are limited to a live window (SPEC section 6). */
  readonly usesLiveWindow?: boolean | undefined;
  /**
   * Returns the next frame or loss; `undefined` at the end; a promise if none is ready.
   *
   * @param offered whether the frame is only described for now, because the server may have it
   */
  next(offered: boolean): Frame | Loss | undefined | Promise<Frame | Loss | undefined>;
  /**
   * Called when reading `frame` failed with `error`, or when a source that takes frames back lost
   * it in another way. Returns the frame for another attempt, or its loss.
   */
  retry(frame: Frame, error: FramesError): Frame | Loss;
  /**
   * Removes a delivered frame, if it is unchanged since it was sent. Returns `superseded` if it
   * changed and will be sent again, or if its later version was removed. Returns when to try again
   * if another process may still be writing to it, or too many files are open.
   *
   * @param crc32 CRC-32 of the payload sent
   * @throws {FramesError} `changed` or `unreadable`; the frame is not removed then
   */
  readonly remove?:
    ((frame: Frame, crc32: number) => Promise<"removed" | "superseded" | Postponed>) | undefined;
  /**
   * Keeps a copy of a frame whose name is taken at the server, because a later frame of this name
   * would take its place here. Returns the path of the copy; `undefined` if the frame is gone.
   *
   * @param crc32 CRC-32 of the payload sent
   * @throws if it cannot be copied
   */
  readonly keepCopy?: ((frame: Frame, crc32: number) => string | undefined) | undefined;
  /** Starts capturing, whether or not a server is connected. */
  readonly startCapture?: (() => void) | undefined;
  /** Called when a server is connected and takes frames. */
  readonly onConnected?: (() => void) | undefined;
  /**
   * Called when the connection is lost. The source takes back frames that were not settled.
   *
   * @returns frames that the source does not take back; they are sent on the next connection
   */
  readonly onDisconnected?: ((frames: readonly Frame[]) => readonly Frame[]) | undefined;
  /** Called when the server has stored or refused the frame. */
  readonly onSettled?: ((frame: Frame) => void) | undefined;
  /** Stops capturing. `next` returns the frames captured so far, and then `undefined`. */
  readonly stopCapture?: (() => void) | undefined;
  /** Releases open files and processes. Called once, at the end. */
  close(): void;
}

/** Result of a frame at the receiver: stored, already stored, or refused. */
export type Outcome = "stored" | "present" | FramesError;

/** A frame that a sender offers before sending it. */
export interface OfferedFrame extends Omit<FrameDescription, "metadata"> {
  /** CRC-32 of the frame, if the sender knows it. */
  readonly crc32: number | undefined;
}

/**
 * Answer of a store to an offered frame. `removed` means stored earlier but moved away since.
 * `needsChecksum` means that the store needs the CRC-32 to decide. `conflict` means that other
 * bytes have the name.
 */
export type OfferStatus = "wanted" | "stored" | "removed" | "needsChecksum" | "conflict";

/**
 * Handling of a frame whose name is taken by other bytes. `replace` stores it in their place.
 * `fail` and `skip` refuse it, and the sender counts it as failed or as skipped.
 */
export type ConflictPolicy = "fail" | "skip" | "replace";

/** Stores frames: a directory or a bucket. */
export interface FrameStore {
  /** Path or address of the store, for messages. */
  readonly location: string;
  /**
   * Whether every frame is flushed to disk before `flush` completes, even if its sender did not ask
   * for it.
   */
  readonly isDurable: boolean;
  /**
   * Returns whether no frame is stored in the stream.
   *
   * @throws {FramesError} `store` if the store cannot be used now
   */
  isStreamEmpty(stream: string): boolean;
  /**
   * Checks that a source of this name can be stored.
   *
   * @throws {FramesError} as `open`
   */
  checkNames(stream: string, source: string): void;
  /**
   * Checks that a sender may continue a session. `open` checks it as well. Default: every session.
   *
   * @throws {FramesError} `stolen-session` if another key began it
   */
  readonly checkSession?:
    ((sender: Pick<SourceInfo, "session" | "key" | "keyId">) => void) | undefined;
  /**
   * Opens the store for the frames of one source.
   *
   * @throws {FramesError} if the name of the stream or source cannot be stored, `stolen-session`
   */
  open(source: SourceInfo): SourceStore;
  /**
   * Makes the frames that ended before this call persistent. A receipt may count them only
   * afterwards.
   */
  flush(): void | Promise<void>;
  /**
   * Reads what other servers of a shared store have stored meanwhile. Call it before answering
   * about stored frames.
   *
   * @throws {FramesError} `store`
   */
  readonly refresh?: (() => Promise<void>) | undefined;
  /**
   * Returns a promise while the store has no room for more frames. Pause reading until it resolves.
   * Returns `undefined` otherwise.
   */
  whenReady?(): Promise<void> | undefined;
  /**
   * Longest time in ms that the store delays receipts to commit frames together; only if it is
   * long.
   */
  readonly receiptIntervalMs?: number | undefined;
}

/** Describes the source of frames to a store. */
export interface SourceInfo {
  readonly stream: string;
  readonly source: string;
  readonly session: string;
  /** Name of the key that the sender proved, and its id. */
  readonly key?: string;
  readonly keyId?: string;
  readonly raw?: RawShape;
  /** Policy for name conflicts; `fail` by default. */
  readonly conflict?: ConflictPolicy;
  /** Whether frames that were moved away from the store are stored again. */
  readonly resendRemoved?: boolean;
  /** Whether a frame replaces an earlier frame of the same session and name. */
  readonly replacesOwn?: boolean;
  /**
   * Whether the frames are copied from another store. A copy replaces a journalled frame of the
   * same name, but not a file that is in no journal.
   */
  readonly isCopy?: boolean;
  /** Whether frames must survive a power loss once `flush` completes. */
  readonly durable?: boolean;
  /**
   * Whether a file is read before it counts as stored already, because the sender may keep no other
   * copy.
   */
  readonly verifyStored?: boolean;
  /** Whether the sender understands the refusal `moved-away`. */
  readonly knowsMovedAway?: boolean;
}

/**
 * Runs a slice of costly work, of a few milliseconds, when the turn of its peer comes. Resolves to
 * what the slice returns.
 */
export type RunSlice = <T>(slice: () => T) => Promise<T>;

/** Stores the frames of one source in one session. */
export interface SourceStore {
  /**
   * Begins a frame.
   *
   * @throws {FramesError} if the frame is refused
   */
  begin(description: FrameDescription): FrameWriter;
  /**
   * Compares offered frames with stored ones, in their order. The answers are valid once `flush`
   * completes. Returns fewer answers than frames if the file of the next frame has to be read with
   * `readStored` first.
   */
  compare(offered: readonly OfferedFrame[]): OfferStatus[];
  /** Reads the stored file of an offered frame in slices, for the next call of `compare`. */
  readStored?(offered: OfferedFrame, run: RunSlice): Promise<void>;
  /**
   * Records sequence numbers that will never arrive.
   *
   * @param name of the lost frame, if it is known
   */
  recordLoss(first: number, last: number, error: FramesError, name?: string): void;
  /** Hints that no frames follow for now, so the sender waits for its receipt. */
  flushSoon?(): void;
}

/** Writes one frame. */
export interface FrameWriter {
  /**
   * Writes the next bytes. They are valid until the call returns, so the writer must copy what it
   * keeps.
   *
   * @throws {FramesError} if the frame is refused; it is discarded then
   */
  write(bytes: Uint8Array): void;
  /**
   * Completes the frame.
   *
   * @param crc32 CRC-32 of all bytes written
   * @throws {FramesError} if the frame is refused
   */
  finish(crc32: number): Outcome | Promise<Outcome>;
  /** Discards the unfinished frame. */
  discard(): void;
}

/** Stores frames received from a server, and the cursor with which to resume. */
export interface ReceiveTarget extends FrameStore {
  /** Cursor to send in HELLO; `undefined` to begin with the first frame. */
  readonly cursor: string | undefined;
  /**
   * Whether frames persist after the process ends. If so, a frame found already stored may be from
   * an earlier run.
   */
  readonly isPersistent: boolean;
  /** Whether no further frame can be accepted for now. */
  readonly isFull: boolean;
  /** Error with which the target could not be opened. It ends the session. */
  readonly failure?: unknown;
  /**
   * Called when the server is connected.
   *
   * @param identity identity of the server's store (SPEC section 9), if the server sends one
   * @param location name of the server's store and address of the server, for messages
   * @param hasFrames whether the server has frames to send now
   * @throws {FramesError} `usage` if the target has frames of another store
   */
  onConnected(identity: string | undefined, location: string, hasFrames: boolean): void;
  /**
   * Called for each CURSOR. Returns a function that persists it with the next `flush`; call it once
   * every earlier frame is stored.
   */
  onCursor(cursor: string): () => void;
}
