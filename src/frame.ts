/** What a frame is, where frames come from and where they go: known to every part of `frames`. */
import type { FramesError } from "./errors.ts";

/** What describes a frame on the wire and in the journal. */
export interface FrameDescription {
  /** File name, one path part. */
  readonly name: string;
  /** From 1, unique within session and source. */
  readonly sequence: number;
  /** Capture time in nanoseconds since 1970. */
  readonly captured: bigint;
  /** Bytes. */
  readonly size: number;
  /** A JSON object as text, or nothing. */
  readonly metadata: string;
}

/** A frame whose bytes can be read, again too when a connection broke. */
export interface Frame extends FrameDescription {
  /**
   * Reads the whole frame into `into`, which is `size` bytes long.
   *
   * @throws {FramesError} `changed`, `vanished` or `unreadable`: nothing in `into` is to be used
   */
  read(into: Uint8Array): void;
  /**
   * Reads a frame too large for one message: its bytes in order, about a MiB at a time. The last is
   * only given out when the frame is known not to have changed meanwhile.
   *
   * @throws {FramesError} as `read`
   */
  pieces(): AsyncIterator<Uint8Array, undefined>;
}

/** Sequence numbers that will never come, and why. */
export interface Loss {
  readonly first: number;
  readonly last: number;
  /** What the numbers belonged to, for people: the name of the frame. */
  readonly what: string;
  readonly error: FramesError;
}

/** Shape of raw frames, which have none of their own. */
export interface RawShape {
  readonly width: number;
  readonly height: number;
  /** ffmpeg's name of the pixel format, such as `gray16le`. */
  readonly format: string;
}

/** Where the frames of one source come from. */
export interface FrameSource {
  /** Parts joined by `/`. */
  readonly name: string;
  /** Media type of the frames, where all have the same. */
  readonly type?: string;
  readonly raw?: RawShape;
  /** How many frames there are to come in all, where that is known: for progress. */
  readonly total?: number | undefined;
  /** Numbers given so far, where more may be waiting than were asked for. */
  readonly capturedCount?: number;
  /** What it lost and `next` has not told yet. */
  readonly unreportedLosses?: readonly Loss[];
  /** Whether an earlier delivery may have brought its frames: they are offered before they are sent. */
  readonly isResumable?: boolean;
  /** Whether its frames come as they are captured, so that their delay is of interest. */
  readonly isLive?: boolean;
  /** Whether no more of them is to be under way than is still fresh. */
  readonly usesLiveWindow?: boolean;
  /**
   * The next frame or loss; `undefined` at the end; a promise if it must be waited for.
   *
   * @param offered whether the frame is only described for now, since the server may have it
   */
  next(offered: boolean): Frame | Loss | undefined | Promise<Frame | Loss | undefined>;
  /** After reading `frame` failed with `error`: the frame once more, or its loss. */
  retry(frame: Frame, error: FramesError): Frame | Loss;
  /**
   * Removes a frame that was delivered, if it is still what was sent.
   *
   * @param crc32 of what was sent
   * @throws {FramesError} `changed` or `unreadable`: it stays
   */
  remove?(frame: Frame, crc32: number): Promise<void>;
  /** Captures from now on, whether there is a server or not. */
  startCapture?(): void;
  /** A server is there to take frames. */
  onConnected?(): void;
  /**
   * There is no server any more: what was under way, or waited to be, is the source's again.
   *
   * @returns what it does not take back, to be sent when there is one again
   */
  onDisconnected?(frames: readonly Frame[]): readonly Frame[];
  /** The server has the frame, or has refused it. */
  onSettled?(frame: Frame): void;
  /** Captures nothing more: `next` gives what was captured so far, and then `undefined`. */
  stopCapture?(): void;
  /** Gives up what is open. Called once, at the end. */
  close(): void;
}

/** What became of a frame at the receiver: stored, found stored already, or refused. */
export type Outcome = "stored" | "present" | FramesError;

/** A frame that a sender has; it asks whether the store has it too. */
export interface OfferedFrame extends Omit<FrameDescription, "metadata"> {
  /** CRC-32, if the sender knows it. */
  readonly crc32: number | undefined;
}

/**
 * What a store knows of an offered frame: it wants it, has it, had it until somebody moved it away,
 * cannot tell without its CRC-32, or has other bytes under its name.
 */
export type OfferStatus = "wanted" | "stored" | "removed" | "needsChecksum" | "conflict";

/**
 * What becomes of a frame whose name is taken by other bytes: `replace` stores it in their place, the
 * others refuse it, and differ in what the sender makes of that.
 */
export type ConflictPolicy = "fail" | "skip" | "replace";

/** Where frames go: a directory or a bucket. */
export interface FrameStore {
  /** For people: where the frames lie. */
  readonly location: string;
  /** Whether everything is flushed to the disk before `flush` is done, whoever sends it. */
  readonly isDurable: boolean;
  /**
   * Whether nothing is stored under this stream.
   *
   * @throws {FramesError} `store` if nothing can be stored now
   */
  isStreamEmpty(stream: string): boolean;
  /**
   * Whether frames of a source can be kept under its name.
   *
   * @throws {FramesError} as `open`
   */
  checkNames(stream: string, source: string): void;
  /**
   * Makes ready to store frames of one source.
   *
   * @throws {FramesError} if stream or source cannot be kept under their names
   */
  open(source: SourceInfo): SourceStore;
  /** Makes everything that ended before this call last: only then may a receipt count it. */
  flush(): void | Promise<void>;
  /**
   * Where others store as well: takes notice of what they have stored until now, before somebody is told what
   * is there.
   *
   * @throws {FramesError} `store`
   */
  refresh?(): Promise<void>;
  /**
   * Nothing as long as there is room for what comes; else what is settled when there is some again. Until then
   * nothing is to be read.
   */
  whenReady?(): Promise<void> | undefined;
  /** Milliseconds that frames may wait for their receipt together, where that is long. */
  readonly receiptIntervalMs?: number;
}

/** Whose frames these are. */
export interface SourceInfo {
  readonly stream: string;
  readonly source: string;
  readonly session: string;
  /** Name of the key that its sender proved. */
  readonly key?: string;
  readonly raw?: RawShape;
  /** Default `fail`. */
  readonly conflict?: ConflictPolicy;
  /** Whether frames that were moved away since are stored again. */
  readonly resendRemoved?: boolean;
  /** Whether a later number of the same session takes the place of an earlier one with its name. */
  readonly replacesOwn?: boolean;
  /**
   * Whether it is a copy of another store: what is recorded under the name of a frame gives way to it, what
   * nobody has recorded does not.
   */
  readonly isCopy?: boolean;
  /** Whether its frames must survive a power cut once `flush` is done. */
  readonly durable?: boolean;
  /** Whether its sender may have no other copy: what is there is read before it counts as stored. */
  readonly verifyStored?: boolean;
}

/** Where the frames of one source in one session go. */
export interface SourceStore {
  /**
   * Begins a frame.
   *
   * @throws {FramesError} if the frame is refused
   */
  begin(description: FrameDescription): FrameWriter;
  /** What is known of offered frames, in their order; it holds once `flush` is done. */
  compare(offered: readonly OfferedFrame[]): OfferStatus[];
  /** Records numbers that will never come. */
  recordLoss(first: number, last: number, error: FramesError): void;
  /** No more frames come for now: somebody waits to hear what became of those that did. */
  flushSoon?(): void;
}

/** A frame being stored. */
export interface FrameWriter {
  /**
   * Takes the next bytes, which are good until this returns: whoever keeps them copies them.
   *
   * @throws {FramesError} if the frame is refused; it is then discarded
   */
  write(bytes: Uint8Array): void;
  /**
   * All bytes are there and have this CRC-32.
   *
   * @throws {FramesError} if the frame is refused
   */
  finish(crc32: number): Outcome | Promise<Outcome>;
  /** The frame will not be finished. */
  discard(): void;
}

/** Where frames go that are received from a server, and how far that is. */
export interface ReceiveTarget extends FrameStore {
  /** What the server is told to go on from there; nothing to begin at the beginning. */
  readonly cursor: string | undefined;
  /** Whether frames stay there: one that is there may then have come another time. */
  readonly isPersistent: boolean;
  /** Whether nothing more can be taken for now. */
  readonly isFull: boolean;
  /**
   * The server is there.
   *
   * @param identity tells its store from others, if it says so
   * @param location where that is, for people
   * @throws {FramesError} `usage` if what is kept already came from another store
   */
  onConnected(identity: string | undefined, location: string): void;
  /**
   * A cursor came, behind all frames that have come. What is returned keeps it, with the next `flush`: to be
   * called when all these are settled.
   */
  onCursor(cursor: string): () => void;
}
