/**
 * The server's end of a connection with a receiving client (SPEC section 9), without I/O. Frames,
 * including large ones, are sent one after another in journal order, so one position describes the
 * client's progress.
 */
import { defined } from "../../common/defined.ts";
import { errorByNumber, FramesError, truncateMessage } from "../../errors.ts";
import type { Frame } from "../../frame.ts";
import type { Decoder, MessageHandler } from "../../wire/decode.ts";
import { encodeControl, maxPackedFrameBytes } from "../../wire/encode.ts";
import {
  type ControlBodies,
  type ControlMessage,
  type ControlType,
  type Done,
  MessageType,
  unexpectedMessage,
  videoFeature,
} from "../../wire/messages.ts";
import type { AdmittedClient } from "../handshake.ts";
import { peerError } from "../frame-errors.ts";
import { CursorReports } from "./cursor-reports.ts";
import { LiveWindow } from "../live-window.ts";
import { LargeFrame } from "../large-frame.ts";
import { Keepalive, toWireTime } from "../keepalive.ts";
import type { PlaybackCounts, PlaybackItem, PlaybackFrame, Playback } from "./playback.ts";
import { SourceIds } from "./source-ids.ts";
import { RateLimiter } from "../rate-limiter.ts";
import type { WriteBatch } from "../send/write-batch.ts";
import { SendWindow } from "../send/send-window.ts";

/** Window of a client whose HELLO has none (SPEC section 9). */
const defaultWindow = { bytes: 64 << 20, frames: 8192 } as const;

/** PONGs queued until the next `transmit`. Further PINGs are not answered until then. */
const maxQueuedPongs = 1000;

type Phase = "open" | "ending" | "done" | "failed";

type SentFrame = Pick<Frame, "size" | "sequence">;

/** A large frame being sent in pieces. */
interface LargeItem {
  readonly frame: LargeFrame;
  readonly item: PlaybackFrame;
  readonly id: number;
}

export class PlaybackSender implements MessageHandler {
  readonly #decoder: Decoder;
  readonly #playback: Playback;
  readonly #onWritable: () => void;
  readonly #keepalive: Keepalive;
  readonly #rateLimiter: RateLimiter;
  readonly #window: SendWindow<number, SentFrame>;
  readonly #ids = new SourceIds();
  readonly #controls: Uint8Array[] = [];
  /** Largest frame that the client accepts, in bytes. */
  readonly #maxFrameBytes: number;
  /** Whether the client knows the flag KEY. */
  readonly #knowsKeys: boolean;
  /** Limits the frames in flight; only for clients that asked for the latest frames. */
  readonly #liveWindow: LiveWindow | undefined;
  /** Frames left to send; `Infinity` if HELLO has no `first`. */
  #remainingFrames: number;
  /** Whether the next PROOF is ignored, because the server requires no key. */
  #ignoresProof: boolean;
  #phase: Phase = "open";
  #now: number;
  /** Next item, taken from the playback but not begun. */
  #item: PlaybackItem | undefined;
  #large: LargeItem | undefined;
  readonly #cursorReports: CursorReports;
  #pongs = 0;
  #refusals = 0;
  #aborts = 0;
  #settled = { position: 0, frames: 0, bytes: 0 };
  readonly #unsent = { gone: 0, unread: 0, dropped: 0 };

  /**
   * @param client has got WELCOME
   * @param timeoutMs a client silent for this long counts as gone
   * @param now ms since 1970 of a clock that never jumps, as in all methods
   * @param onWritable called when more can be sent; call `transmit`
   */
  constructor(
    { hello, decoder, requiresKey }: AdmittedClient,
    playback: Playback,
    timeoutMs: number,
    now: number,
    onWritable: () => void,
  ) {
    this.#decoder = decoder;
    this.#playback = playback;
    this.#onWritable = onWritable;
    this.#now = now;
    this.#keepalive = new Keepalive(now, timeoutMs);
    this.#keepalive.onHandshakeDone();
    this.#rateLimiter = new RateLimiter(now);
    this.#window = new SendWindow(hello.window ?? defaultWindow);
    this.#maxFrameBytes = hello.limits?.frame ?? Infinity;
    this.#knowsKeys = hello.features?.includes(videoFeature) === true;
    this.#remainingFrames = hello.first ?? Infinity;
    if (hello.latest === true) this.#liveWindow = new LiveWindow();
    this.#ignoresProof = !requiresKey;
    this.#cursorReports = new CursorReports(now);
    decoder.setHandler(this);
  }

  /** Whether DONE has arrived. */
  get isDone(): boolean {
    return this.#phase === "done";
  }

  /** Frames settled by the client, and frames that were not sent. */
  get counts(): PlaybackCounts {
    const { frames, bytes } = this.#settled;
    return { frames, bytes, ...this.#unsent, refused: this.#refusals };
  }

  /** Journal position of the last frame that the client has settled; 0 before the first. */
  get position(): number {
    return this.#settled.position;
  }

  /** Whether the client has not settled everything taken from the playback. */
  get hasUnsettled(): boolean {
    const { ended, settled } = this.#window;
    return ended > settled || this.#large !== undefined || this.#item !== undefined;
  }

  /** Whether the caller must stop reading from the client. */
  get isPaused(): boolean {
    return this.#rateLimiter.isOverLimit;
  }

  /** Begins with what the decoder has kept after the handshake. Call it once. */
  start(): void {
    this.#decoder.resume();
  }

  /**
   * Processes bytes from the client.
   *
   * @throws {FramesError} if the connection has failed; pass the error to `fail`
   */
  receive(chunk: Uint8Array, now: number): void {
    this.#now = now;
    this.#keepalive.onReceived(now);
    if (this.#phase === "failed") return;
    this.#decoder.receive(chunk);
  }

  /**
   * Checks timeouts. Call it about once a second.
   *
   * @throws {FramesError} `timeout`
   */
  tick(now: number): void {
    this.#now = now;
    if (this.#phase === "done" || this.#phase === "failed") return;
    if (this.isPaused) this.#keepalive.onReceived(now);
    const awaited = this.#phase === "ending" ? "DONE" : "receipts";
    if (this.#keepalive.tick(now, awaited, this.#decoder.incompleteMessage)) {
      this.#send(MessageType.ping, 0, { time: toWireTime(now) });
      this.#onWritable();
    }
    if (this.#rateLimiter.refill(now)) {
      this.#decoder.resume();
      this.#onWritable();
    }
    if (this.#cursorReports.hasUnreported) this.#onWritable();
  }

  /** Queues ERROR as the last message; the caller sends it with `transmit`. */
  fail(error: FramesError): void {
    if (this.#phase === "done" || this.#phase === "failed") return;
    this.#send(MessageType.error, 0, error.wireFields);
    this.#phase = "failed";
    this.close();
  }

  /** Closes open frames and discards received bytes. */
  close(): void {
    this.#decoder.discard();
    this.#large?.frame.close();
    this.#large = undefined;
  }

  /**
   * Packs what can be sent now. Call it again after `onWritable`, or while the playback is busy.
   *
   * @param out left empty if nothing can be sent
   */
  transmit(out: WriteBatch, now: number): void {
    this.#now = now;
    if (out.packAll(this.#controls)) {
      this.#pongs = 0;
      if (this.#phase === "open") this.#pack(out);
    }
    if (out.length > 0) this.#keepalive.onSent(now);
  }

  #pack(out: WriteBatch): void {
    while (out.packAll(this.#controls)) {
      if (this.#large !== undefined) {
        if (!this.#packPiece(out, this.#large)) return;
        continue;
      }
      if (this.#remainingFrames === 0) return this.#end(out);
      if (this.#liveWindow?.canBegin(this.#now) === false) return;
      this.#item ??= this.#playback.next();
      if (this.#item === undefined) {
        if (this.#playback.isEnded) return this.#end(out);
        if (this.#cursorReports.isDue(this.#now)) this.#sendCursor();
        return void out.packAll(this.#controls);
      }
      const item = this.#item;
      if (item.type !== "frame") this.#sendMissing(item);
      else if (item.frame.size > this.#maxFrameBytes)
        this.#item = tooLargeItem(item, this.#maxFrameBytes);
      else if (!this.#packFrame(out, item)) return;
    }
  }

  /** Sends the last CURSOR and END. */
  #end(out: WriteBatch): void {
    this.#sendCursor();
    this.#send(MessageType.end, 0, { frames: this.#window.ended });
    this.#phase = "ending";
    if (!out.packAll(this.#controls)) this.#onWritable();
  }

  /** Packs a frame, or the start of a large one. Returns whether packing can continue. */
  #packFrame(out: WriteBatch, item: PlaybackFrame): boolean {
    const { frame } = item;
    if (!this.#window.fits(frame)) return false;
    const isLarge = frame.size > maxPackedFrameBytes;
    if (!out.hasRoomFor(frame, !isLarge)) return false;
    const id = this.#declare(item);
    // SOURCE is queued and must be sent before the frame.
    if (this.#controls.length > 0) return true;
    this.#item = undefined;
    let crc = 0;
    try {
      if (isLarge) out.packFrameStart(id, frame, this.#knowsKeys);
      else crc = out.packFrame(id, frame, this.#knowsKeys);
    } catch (error) {
      this.#onReadError(item, error);
      return true;
    }
    this.#window.begin(frame);
    this.#liveWindow?.begin();
    if (isLarge) {
      const large = new LargeFrame(frame, () => this.#onWritable());
      this.#large = { frame: large, item, id };
    } else this.#onFrameSent(item, crc);
    return true;
  }

  /** Packs a piece of a large frame. Returns whether packing can continue. */
  #packPiece(out: WriteBatch, { frame, item, id }: LargeItem): boolean {
    if (frame.failure !== undefined) {
      this.#abort(frame.failure);
      this.#onReadError(item, frame.failure);
      return true;
    }
    if (!frame.isReady || !out.hasRoomForPiece) return false;
    const piece = out.packPiece(id, frame);
    // Reading failed, or goes on ahead.
    if (piece === undefined) return true;
    if (!piece.more) {
      frame.close();
      this.#large = undefined;
      this.#onFrameSent(item, frame.crc);
    }
    // A piece follows the buffer, so nothing more can be packed after it.
    return false;
  }

  #onReadError(item: PlaybackFrame, error: unknown): void {
    // An error of the whole store ends the connection, and no frame counts as lost.
    if (!(error instanceof FramesError) || error.code === "store") throw error;
    this.#item = this.#playback.onReadError(item, error);
  }

  /** Records that a frame was sent completely. */
  #onFrameSent(item: PlaybackFrame, crc: number): void {
    this.#window.end(item.position, toSentFrame(item), crc, false);
    this.#remainingFrames--;
    if (this.#cursorReports.onItemSent(item, item.frame.size)) this.#sendCursor();
  }

  /** @param isRefused whether the client has refused the frame */
  #abort(error: FramesError, isRefused = false): void {
    const { frame: large, item, id } = this.#large!;
    large.close();
    this.#large = undefined;
    if (isRefused) this.#refusals++;
    else this.#aborts++;
    const { sequence } = item.frame;
    this.#send(MessageType.abort, id, { sequence, ...error.wireFields });
    this.#window.end(item.position, toSentFrame(item), large.crc, true, isRefused);
  }

  #sendCursor(): void {
    const cursor = this.#cursorReports.next(this.#now);
    if (cursor !== undefined) this.#send(MessageType.cursor, 0, { cursor });
  }

  #sendMissing(item: Exclude<PlaybackItem, PlaybackFrame>): void {
    this.#item = undefined;
    const id = this.#declare(item);
    if (item.type === "gone") {
      this.#unsent.gone++;
      this.#send(MessageType.gone, id, { sequence: item.sequence, name: item.name });
    } else {
      const { first, last, name } = item;
      const { error, message } = item.error.wireFields;
      const isDropped = item.error.code === "dropped";
      this.#unsent[isDropped ? "dropped" : "unread"] += last - first + 1;
      const fields = { error, message, ...(name !== undefined && { name }) };
      this.#send(MessageType.lost, id, { ranges: [[first, last]], ...fields });
    }
    if (this.#cursorReports.onItemSent(item, 0)) this.#sendCursor();
  }

  /**
   * Returns the id of the item's source. Sends SOURCE first if the id is new or had another
   * meaning.
   */
  #declare({ source }: PlaybackItem): number {
    const { id, isNew } = this.#ids.idFor(source);
    if (!isNew) return id;
    const { name, session, type, raw } = source;
    this.#send(MessageType.source, id, { name, session, ...defined({ type, raw }) });
    return id;
  }

  #send<T extends ControlType>(type: T, source: number, body: ControlBodies[T]): void {
    // ERROR is the last message.
    if (this.#phase !== "failed") this.#controls.push(encodeControl(type, source, body));
  }

  // Callbacks of the decoder.

  onControl(message: ControlMessage): void {
    this.#rateLimiter.count();
    if (this.#rateLimiter.isOverLimit) this.#decoder.pause();
    // DONE is the client's last message.
    if (this.#phase === "done") throw unexpectedMessage(message.type);
    switch (message.type) {
      case MessageType.error:
        throw peerError("receiver", message.body);
      case MessageType.ping:
        if (++this.#pongs > maxQueuedPongs) return;
        this.#send(MessageType.pong, 0, { time: message.body.time, clock: toWireTime(this.#now) });
        return this.#onWritable();
      case MessageType.pong:
        return;
      case MessageType.refused:
        return this.#onRefused(message.source, message.body);
      case MessageType.done:
        return this.#onDone(message.body);
      default:
        throw unexpectedMessage(message.type);
    }
  }

  onReceipt(frames: number): void {
    const { ended, settled } = this.#window;
    if (this.#phase === "done" || frames < settled || frames > ended) {
      throw new FramesError(
        "protocol",
        `Cannot accept RECEIPT ${frames}: ${ended} frames were sent`,
      );
    }
    this.#ack(frames);
    this.#onWritable();
  }

  #ack(frames: number): void {
    for (let entry; (entry = this.#window.settleNext(frames)) !== undefined;) {
      const { owner, frame, isAborted, isRefused } = entry;
      this.#liveWindow?.ack(this.#now);
      if (isAborted) continue;
      this.#settled.position = owner;
      if (isRefused) continue;
      this.#settled.frames++;
      this.#settled.bytes += frame.size;
    }
  }

  #onRefused(
    id: number,
    { sequence, error, message }: ControlBodies[typeof MessageType.refused],
  ): void {
    const large = this.#large;
    if (large?.id === id && large.item.frame.sequence === sequence) {
      this.#abort(new FramesError(errorByNumber(error, "refusal"), truncateMessage(message)), true);
      return this.#onWritable();
    }
    const entry = this.#window.findUnrefused(sequence);
    if (entry === undefined) throw unexpectedMessage(MessageType.refused);
    if (entry.isAborted) this.#aborts--;
    entry.isRefused = true;
    this.#refusals++;
  }

  #onDone(done: Done): void {
    const { frames, stored, present, refused, aborted } = done;
    const { ended } = this.#window;
    const isRight = frames === ended && stored + present + refused + aborted === ended;
    if (this.#phase !== "ending") throw unexpectedMessage(MessageType.done);
    if (!isRight || refused !== this.#refusals || aborted !== this.#aborts) {
      throw new FramesError(
        "protocol",
        "Cannot accept DONE: its counts do not match the frames that were sent",
      );
    }
    this.#ack(ended);
    this.#phase = "done";
  }

  onProof(): void {
    // A server without keys ignores a client's proof (SPEC section 10).
    if (!this.#ignoresProof) throw unexpectedMessage(MessageType.proof);
    this.#ignoresProof = false;
  }
}

/** Returns the part of a frame to remember while it is in flight. Thousands of frames may be. */
function toSentFrame({ frame: { size, sequence } }: PlaybackFrame): SentFrame {
  return { size, sequence };
}

/** Returns the LOST item for a frame over the client's limit. */
function tooLargeItem(
  { source, position, cursor, frame }: PlaybackFrame,
  maxBytes: number,
): PlaybackItem {
  const { sequence, size, name } = frame;
  const message = `the frame has ${size} bytes, the receiver accepts ${maxBytes}`;
  const error = new FramesError("too-large", message);
  return { type: "lost", source, position, cursor, first: sequence, last: sequence, name, error };
}
