/** The sources that one sender has declared, and their frames on the way into the store. */
import { defined } from "../../common/defined.ts";
import { compileCheaply, countBegunFrame } from "../../common/compilation.ts";
import { errorByNumber, FramesError, truncateMessage } from "../../errors.ts";
import type {
  FrameDescription,
  SourceInfo,
  FrameWriter,
  OfferedFrame,
  Outcome,
  RawShape,
  RunSlice,
  SourceStore,
  OfferStatus,
} from "../../frame.ts";
import {
  type ControlBodies,
  type OfferEntry,
  type SourceDeclaration,
  offerStatusByLetter,
  MessageType,
  Size,
  unexpectedMessage,
} from "../../wire/messages.ts";
import { codecOf, PictureHead } from "../../video/picture-head.ts";
import { tooLargeError } from "../frame-errors.ts";
import type { ReceiverLimits, ReceiverOptions } from "./receiver-events.ts";
import type { OutcomeCounts } from "./outcome-counts.ts";

type LostBody = ControlBodies[typeof MessageType.lost];

/** A declared source id. */
interface IncomingSource {
  readonly stream: string;
  readonly name: string;
  /** Media type of the frames, if it was declared. */
  readonly type: string | undefined;
  readonly raw: RawShape | undefined;
  readonly revises: boolean | undefined;
  /** Session of the original sender; a server sends it to a receiving client. */
  readonly session: string | undefined;
  /**
   * The source's store, or why the source is refused. Opened with the first frame, because a peer
   * may declare sources that it never sends.
   */
  store: SourceStore | FramesError | undefined;
  unfinished: IncomingFrame | undefined;
}

interface IncomingFrame {
  readonly description: FrameDescription;
  /**
   * Destination of the payload, or why the frame is refused. The first bytes of a picture of encoded
   * video are kept until they tell whether it is a key frame.
   */
  writer: FrameWriter | PictureHead | FramesError;
}

/** Offered frames compared in one slice of work, and ranges of lost frames recorded in one. */
const offersPerSlice = 256;
export const lossesPerSlice = 256;

/** Characters kept of a refused source's name, for log lines and events. */
const maxRefusedNameLength = 100;

const letterByStatus = new Map<OfferStatus, string>(
  [...offerStatusByLetter].map(([letter, status]) => [status, letter]),
);

export class IncomingSources {
  readonly #options: ReceiverOptions;
  readonly #limits: ReceiverLimits["limits"];
  readonly #outcomes: OutcomeCounts;
  readonly #sendRefused: (id: number, sequence: number, error: FramesError) => void;
  readonly #sources = new Map<number, IncomingSource>();
  #foundCount = 0;
  #bufferedBytes = 0;
  /** Whether losses were recorded since the last flush of the store. */
  hasUnsavedLosses = false;

  /** @param sendRefused sends REFUSED for a frame of the source with this id */
  constructor(
    options: ReceiverOptions,
    outcomes: OutcomeCounts,
    sendRefused: (id: number, sequence: number, error: FramesError) => void,
  ) {
    this.#options = options;
    this.#limits = options.grants.limits;
    this.#outcomes = outcomes;
    this.#sendRefused = sendRefused;
    compileCheaply(this.beginFrame, this.writePayload, this.finishFrame, this.#onFrameEnded);
    compileCheaply(this.#openStore, this.#sourceWithId);
  }

  /** Offered frames that the sender does not have to send. */
  get foundCount(): number {
    return this.#foundCount;
  }

  /** Whether no source is declared. */
  get isEmpty(): boolean {
    return this.#sources.size === 0;
  }

  /** The sources declared now. */
  get declared(): Iterable<{ readonly stream: string; readonly name: string }> {
    return this.#sources.values();
  }

  /** Bytes of unfinished pictures that are kept until they tell whether these are key frames. */
  get bufferedBytes(): number {
    return this.#bufferedBytes;
  }

  /** Sequence number of the unfinished frame of a source. */
  unfinishedSequence(id: number): number | undefined {
    return this.#sources.get(id)?.unfinished?.description.sequence;
  }

  /**
   * Checks whether an id can be declared. Returns the source that it meant before.
   *
   * @throws {FramesError} `limit` over the maximum of sources, `protocol` while a frame of it is
   * unfinished
   */
  checkDeclaration(id: number): IncomingSource | undefined {
    const known = this.#sources.get(id);
    const { sources } = this.#limits;
    if (known === undefined && this.#sources.size >= sources) {
      throw new FramesError("limit", `Cannot accept another source: the limit is ${sources}`);
    }
    if (known?.unfinished !== undefined) throw unexpectedMessage(MessageType.source);
    return known;
  }

  /**
   * Binds the id to a source of `stream`. A source with an invalid name is kept, and its frames are
   * refused.
   */
  declare(id: number, stream: string, declaration: SourceDeclaration): void {
    const { name, type, raw, revises, session } = declaration;
    const refusal = catchFrameError(() => this.#options.store.checkNames(stream, name));
    // A refused name can be of any length.
    const shownName = refusal instanceof FramesError ? name.slice(0, maxRefusedNameLength) : name;
    const store = refusal instanceof FramesError ? refusal : undefined;
    this.#sources.set(id, {
      stream,
      name: shownName,
      type,
      raw,
      revises,
      session,
      store,
      unfinished: undefined,
    });
  }

  /** Returns the source's store, or the error with which its frames are refused. */
  #openStore(incoming: IncomingSource): SourceStore | FramesError {
    return (incoming.store ??= catchFrameError(() => {
      const { store, peer } = this.#options;
      return store.open(toSourceInfo(peer, incoming));
    }));
  }

  /** Returns a trace line for a frame. */
  describeFrame(id: number, { sequence, name, size }: FrameDescription): string {
    return `FRAME ${this.sourceName(id)} ${sequence} ${name} ${size} bytes`;
  }

  /**
   * Returns the name of the source with this id.
   *
   * @throws {FramesError} `protocol` if the id has no SOURCE
   */
  sourceName(id: number): string {
    return this.#sourceWithId(id).name;
  }

  #sourceWithId(id: number): IncomingSource {
    const incoming = this.#sources.get(id);
    if (incoming !== undefined) return incoming;
    throw new FramesError(
      "protocol",
      `Cannot accept a message of source ${id}: no SOURCE declared it`,
    );
  }

  /**
   * Checks that another frame may be sent in several messages.
   *
   * @throws {FramesError} `limit` if the maximum of frames is unfinished
   */
  checkUnfinishedLimit(unfinished: number): void {
    const max = this.#limits.unfinished;
    if (unfinished < max) return;
    throw new FramesError(
      "limit",
      `Cannot accept another frame: ${max} are unfinished, which is the limit`,
    );
  }

  /** Begins a frame. Sends REFUSED at once if the store does not accept it. */
  beginFrame(id: number, description: FrameDescription): void {
    countBegunFrame();
    const incoming = this.#sourceWithId(id);
    const store = this.#openStore(incoming);
    const codec = codecOf(incoming.type, description.name);
    let writer: IncomingFrame["writer"];
    if (store instanceof FramesError) {
      writer = store;
    } else if (description.size > this.#limits.frame) {
      writer = tooLargeError(description.size, this.#limits.frame);
    } else if (codec !== undefined) {
      writer = new PictureHead(codec);
    } else {
      writer = catchFrameError(() => store.begin(description));
    }
    incoming.unfinished = { description, writer };
    if (writer instanceof FramesError) this.#refuse(id, incoming, description, writer);
  }

  /** Begins a picture of encoded video in the store, with the bytes that were kept. */
  #beginPicture(id: number, incoming: IncomingSource, head: PictureHead, isKey: boolean): void {
    const store = this.#openStore(incoming);
    const description = { ...incoming.unfinished!.description, isKey };
    const writer =
      store instanceof FramesError ? store : catchFrameError(() => store.begin(description));
    incoming.unfinished = { description, writer };
    this.#bufferedBytes -= head.bytes.length;
    if (writer instanceof FramesError) this.#refuse(id, incoming, description, writer);
    else if (head.bytes.length > 0) this.writePayload(id, head.bytes);
  }

  #refuse(
    id: number,
    incoming: IncomingSource,
    description: FrameDescription,
    error: FramesError,
  ): void {
    const { sequence, name } = description;
    this.#sendRefused(id, sequence, error);
    // These are not recorded as a loss, because a frame of that name is or was stored.
    const store = this.#openStore(incoming);
    if (error.code === "conflict" || error.code === "moved-away") return;
    if (store instanceof FramesError) return;
    store.recordLoss(sequence, sequence, error, name);
  }

  /** Writes payload of the unfinished frame. The payload of a refused frame is discarded. */
  writePayload(id: number, bytes: Uint8Array): void {
    const incoming = this.#sourceWithId(id);
    const unfinished = incoming.unfinished;
    if (unfinished === undefined) throw unexpectedMessage(MessageType.data);
    const { writer } = unfinished;
    if (writer instanceof FramesError) return;
    if (writer instanceof PictureHead) {
      const isKey = writer.push(bytes);
      if (isKey === undefined) return void (this.#bufferedBytes += bytes.length);
      this.#beginPicture(id, incoming, writer, isKey);
      return this.writePayload(id, bytes);
    }
    const failure = catchFrameError(() => writer.write(bytes));
    if (!(failure instanceof FramesError)) return;
    writer.discard();
    unfinished.writer = failure;
    this.#refuse(id, incoming, unfinished.description, failure);
  }

  /** Completes the unfinished frame. The store may report the outcome later. */
  finishFrame(id: number, crc: number): void {
    const incoming = this.#sourceWithId(id);
    const head = incoming.unfinished!.writer;
    // An access unit without a slice, perhaps without any bytes.
    if (head instanceof PictureHead) this.#beginPicture(id, incoming, head, false);
    const { description, writer } = incoming.unfinished!;
    incoming.unfinished = undefined;
    // REFUSED was sent when the frame was refused.
    if (writer instanceof FramesError) return this.#onFrameEnded(incoming, description, writer);
    if (writer instanceof PictureHead) throw new FramesError("internal");
    const outcome = catchFrameError(() => writer.finish(crc));
    if (outcome instanceof Promise) {
      const resolve = this.#outcomes.addPending();
      outcome
        .then((resolved) => {
          if (resolved instanceof FramesError) this.#refuse(id, incoming, description, resolved);
          resolve(resolved);
          this.#report(incoming, description, resolved);
          this.#options.onFlushNeeded?.();
        })
        .catch((error: unknown) => this.#options.onError?.(error));
      return;
    }
    if (outcome instanceof FramesError) this.#refuse(id, incoming, description, outcome);
    this.#onFrameEnded(incoming, description, outcome);
  }

  /** Counts an ended frame whose outcome is known. */
  #onFrameEnded(
    incoming: IncomingSource,
    description: FrameDescription,
    outcome: Outcome | "aborted",
  ): void {
    this.#outcomes.add(outcome);
    if (outcome !== "aborted") this.#report(incoming, description, outcome);
  }

  #report(incoming: IncomingSource, frame: FrameDescription, outcome: Outcome): void {
    if (this.#options.reportsStored !== true && !(outcome instanceof FramesError)) return;
    this.#options.onEvent?.({ type: "frame", source: incoming.name, frame, outcome });
  }

  /** Handles ABORT: discards the unfinished frame. */
  abortFrame(id: number, sequence: number): void {
    const incoming = this.#sourceWithId(id);
    const { unfinished } = incoming;
    if (unfinished?.description.sequence !== sequence) throw unexpectedMessage(MessageType.abort);
    incoming.unfinished = undefined;
    const { description, writer } = unfinished;
    this.#discard(writer);
    this.#onFrameEnded(incoming, description, writer instanceof FramesError ? writer : "aborted");
  }

  /** Handles LOST with at most `lossesPerSlice` ranges. */
  recordLoss(id: number, body: LostBody): void {
    this.#recordRanges(this.#sourceWithId(id), body, body.ranges);
    this.#reportLoss(id, body);
  }

  /** Handles LOST with many ranges. */
  async recordLossInSlices(id: number, body: LostBody, run: RunSlice): Promise<void> {
    const incoming = this.#sourceWithId(id);
    for (let first = 0; first < body.ranges.length; first += lossesPerSlice) {
      const ranges = body.ranges.slice(first, first + lossesPerSlice);
      await run(() => this.#recordRanges(incoming, body, ranges));
    }
    this.#reportLoss(id, body);
  }

  #recordRanges(incoming: IncomingSource, body: LostBody, ranges: LostBody["ranges"]): void {
    const store = this.#openStore(incoming);
    if (store instanceof FramesError) return;
    this.hasUnsavedLosses = true;
    const name = Buffer.byteLength(body.name ?? "") > Size.name ? undefined : body.name;
    const error = lossError(body);
    for (const [first, last] of ranges) store.recordLoss(first, last, error, name);
  }

  #reportLoss(id: number, body: LostBody): void {
    const frames = body.ranges.reduce((sum, [first, last]) => sum + last - first + 1, 0);
    const safeFrames = Math.min(frames, Number.MAX_SAFE_INTEGER);
    this.#options.onEvent?.({
      type: "lost",
      source: this.sourceName(id),
      frames: safeFrames,
      error: lossError(body),
      ranges: body.ranges,
    });
  }

  /** Returns the body of ANSWER for the offered frames: one letter for each. */
  async answerOffer(id: number, offered: readonly OfferEntry[], run: RunSlice): Promise<string> {
    const store = this.#openStore(this.#sourceWithId(id));
    // Frames of a refused source are wanted here. Each gets a REFUSED with the reason when it is
    // sent.
    if (store instanceof FramesError) return "w".repeat(offered.length);
    let letters = "";
    while (letters.length < offered.length) {
      const next = offered.slice(letters.length, letters.length + offersPerSlice).map(toOffered);
      const statuses = await run(() => store.compare(next));
      for (const status of statuses) {
        if (status === "stored" || status === "removed") this.#foundCount++;
        letters += letterByStatus.get(status)!;
      }
      const unread = next[statuses.length];
      if (unread !== undefined) await store.readStored!(unread, run);
    }
    return letters;
  }

  /** Handles END: asks the stores to flush soon, because the sender waits for DONE. */
  end(): void {
    for (const { store } of this.#sources.values()) {
      if (store !== undefined && !(store instanceof FramesError)) store.flushSoon?.();
    }
  }

  /** Discards all unfinished frames. */
  close(): void {
    for (const incoming of this.#sources.values()) {
      const writer = incoming.unfinished?.writer;
      incoming.unfinished = undefined;
      if (writer !== undefined) this.#discard(writer);
    }
  }

  #discard(writer: IncomingFrame["writer"]): void {
    if (writer instanceof PictureHead) this.#bufferedBytes -= writer.bytes.length;
    else if (!(writer instanceof FramesError)) writer.discard();
  }
}

function toOffered([name, size, captured, sequence, crc32]: OfferEntry): OfferedFrame {
  return { name, size, captured: BigInt(captured), sequence, crc32 };
}

/** Returns the reason that a sender gave for a loss. */
function lossError({ error, message }: LostBody): FramesError {
  const reason = message === undefined ? undefined : truncateMessage(message);
  return new FramesError(errorByNumber(error, "loss"), reason);
}

/** Returns the description of a source for the store, from the HELLO of its connection. */
function toSourceInfo(
  peer: ReceiverOptions["peer"],
  { stream, name: source, raw, revises, session }: IncomingSource,
): SourceInfo {
  const { hello } = peer;
  // Frames that a server plays back keep the session of their original sender.
  if (hello.role === "receive") {
    return { stream, source, ...defined({ raw }), session: session ?? hello.session, isCopy: true };
  }
  const { conflict, again: resendRemoved, durable, features = [] } = hello;
  const key = "key" in peer ? peer.key : undefined;
  return {
    stream,
    source,
    session: hello.session,
    // Without a required key, the id in HELLO was not proved.
    ...defined({ key: key?.name, keyId: key?.key.id }),
    ...defined({ raw, conflict, resendRemoved, replacesOwn: revises ?? hello.revises, durable }),
    knowsMovedAway: features.includes("moved-away"),
  };
}

/**
 * Runs `act` and returns its result, or its error if that concerns one frame or source. Rethrows
 * errors of the store as a whole.
 */
function catchFrameError<T>(act: () => T): T | FramesError {
  try {
    return act();
  } catch (error) {
    if (error instanceof FramesError && isFrameError(error)) return error;
    throw error;
  }
}

/** Whether the error concerns a single frame, and not the whole store (SPEC section 11). */
function isFrameError(error: FramesError): boolean {
  return error.wireCode >= 32;
}
