/** The sources that one sender declared, and their frames on the way into the store. */
import { errorByNumber, FramesError, truncateMessage } from "../../errors.ts";
import type {
  FrameDescription,
  SourceInfo,
  FrameStore,
  FrameWriter,
  Outcome,
  RawShape,
  SourceStore,
  OfferStatus,
} from "../../frame.ts";
import {
  type ControlBodies,
  type Hello,
  type OfferEntry,
  type SourceDeclaration,
  offerStatusByLetter,
  MessageType,
  unexpectedMessage,
  type Welcome,
} from "../../wire/messages.ts";
import { tooLargeError } from "../frame-errors.ts";
import type { OutcomeCounts } from "./outcome-counts.ts";

/** What an id stands for: a source, or why it is refused. */
interface IncomingSource {
  readonly stream: string;
  readonly name: string;
  readonly raw: RawShape | undefined;
  /** The session that it came from, where a server gives it out. */
  readonly session: string | undefined;
  /** Opened when it is first needed: a peer may declare many that it never sends. */
  store: SourceStore | FramesError | undefined;
  unfinished: IncomingFrame | undefined;
}

interface IncomingFrame {
  readonly description: FrameDescription;
  /** Where its bytes go, or why it is refused. */
  writer: FrameWriter | FramesError;
}

/** What inlets need of their conversation. */
export interface IncomingSourcesHooks {
  /** Whose frames those of a source are. */
  sourceInfo(stream: string, source: SourceDeclaration): SourceInfo;
  /** Says REFUSED. */
  sendRefused(id: number, sequence: number, error: FramesError): void;
  /** A frame ended, and what became of it. */
  onFrameEnded(source: string, frame: FrameDescription, outcome: Outcome): void;
  onLost(
    source: string,
    frames: number,
    error: FramesError,
    ranges: readonly (readonly [first: number, last: number])[],
  ): void;
  /** The store finished a frame later. */
  onLateOutcome(): void;
  /** The store failed later. */
  onError(error: unknown): void;
}

/** Characters of the name of a refused source that are kept, to say what was refused. */
const maxRefusedNameLength = 100;

const letterByStatus = new Map<OfferStatus, string>(
  [...offerStatusByLetter].map(([letter, status]) => [status, letter]),
);

export class IncomingSources {
  readonly #store: FrameStore;
  readonly #limits: Welcome["limits"];
  readonly #outcomes: OutcomeCounts;
  readonly #hooks: IncomingSourcesHooks;
  readonly #sources = new Map<number, IncomingSource>();
  #foundCount = 0;
  /** Whether losses were recorded that no flush has made last. */
  hasUnsavedLosses = false;

  constructor(
    store: FrameStore,
    limits: Welcome["limits"],
    outcomes: OutcomeCounts,
    hooks: IncomingSourcesHooks,
  ) {
    this.#store = store;
    this.#limits = limits;
    this.#outcomes = outcomes;
    this.#hooks = hooks;
  }

  /** Offered frames that need not be sent. */
  get foundCount(): number {
    return this.#foundCount;
  }

  /** Whether nothing was declared. */
  get isEmpty(): boolean {
    return this.#sources.size === 0;
  }

  /** What is declared. */
  get declared(): Iterable<{ readonly stream: string; readonly name: string }> {
    return this.#sources.values();
  }

  /** Number of the unfinished frame of a source. */
  unfinishedSequence(id: number): number | undefined {
    return this.#sources.get(id)?.unfinished?.description.sequence;
  }

  /**
   * What the id stood for before.
   *
   * @throws {FramesError} if it cannot be declared now
   */
  checkDeclaration(id: number): IncomingSource | undefined {
    const known = this.#sources.get(id);
    const { sources } = this.#limits;
    if (known === undefined && this.#sources.size >= sources) {
      throw new FramesError("limit", `Cannot take another source: ${sources} are the most`);
    }
    if (known?.unfinished !== undefined) throw unexpectedMessage(MessageType.source);
    return known;
  }

  /** The id stands for this source of `stream` from now on. */
  declare(id: number, stream: string, { name, raw, session }: SourceDeclaration): void {
    const refusal = catchFrameError(() => this.#store.checkNames(stream, name));
    // What is refused may have any name.
    const shownName = refusal instanceof FramesError ? name.slice(0, maxRefusedNameLength) : name;
    const store = refusal instanceof FramesError ? refusal : undefined;
    this.#sources.set(id, { stream, name: shownName, raw, session, store, unfinished: undefined });
  }

  /** Where the frames of a source go, or why they go nowhere. */
  #openStore(incoming: IncomingSource): SourceStore | FramesError {
    const { stream, name, raw, session } = incoming;
    return (incoming.store ??= catchFrameError(() => {
      return this.#store.open(
        this.#hooks.sourceInfo(stream, {
          name,
          ...(raw === undefined ? {} : { raw }),
          ...(session === undefined ? {} : { session }),
        }),
      );
    }));
  }

  /** A frame, for those who want to see the conversation. */
  describeFrame(id: number, { sequence, name, size }: FrameDescription): string {
    return `FRAME ${this.sourceName(id)} ${sequence} ${name} ${size} bytes`;
  }

  /** The source that an id stands for. */
  sourceName(id: number): string {
    return this.#sourceWithId(id).name;
  }

  #sourceWithId(id: number): IncomingSource {
    const incoming = this.#sources.get(id);
    if (incoming !== undefined) return incoming;
    throw new FramesError("protocol", `Cannot accept a message of source ${id}: it has no SOURCE`);
  }

  /** @throws {FramesError} `limit` if so many frames are unfinished as may be */
  checkUnfinishedLimit(unfinished: number): void {
    const max = this.#limits.unfinished;
    if (unfinished < max) return;
    throw new FramesError("limit", `Cannot begin another frame: ${max} are unfinished`);
  }

  /** A frame begins. */
  beginFrame(id: number, description: FrameDescription): void {
    const incoming = this.#sourceWithId(id);
    const store = this.#openStore(incoming);
    let writer: FrameWriter | FramesError;
    if (store instanceof FramesError) {
      writer = store;
    } else if (description.size > this.#limits.frame) {
      writer = tooLargeError(description.size, this.#limits.frame);
    } else {
      writer = catchFrameError(() => store.begin(description));
    }
    incoming.unfinished = { description, writer };
    if (writer instanceof FramesError) this.#refuse(id, incoming, description, writer);
  }

  #refuse(
    id: number,
    incoming: IncomingSource,
    description: FrameDescription,
    error: FramesError,
  ): void {
    const { sequence } = description;
    this.#hooks.sendRefused(id, sequence, error);
    // A conflict is no loss: something is stored under that name.
    const store = this.#openStore(incoming);
    if (error.code === "conflict" || store instanceof FramesError) return;
    store.recordLoss(sequence, sequence, error);
  }

  /** Bytes of the unfinished frame. */
  writePayload(id: number, bytes: Uint8Array): void {
    const incoming = this.#sourceWithId(id);
    const unfinished = incoming.unfinished;
    if (unfinished === undefined) throw unexpectedMessage(MessageType.data);
    const { writer } = unfinished;
    if (writer instanceof FramesError) return;
    const failure = catchFrameError(() => writer.write(bytes));
    if (!(failure instanceof FramesError)) return;
    writer.discard();
    unfinished.writer = failure;
    this.#refuse(id, incoming, unfinished.description, failure);
  }

  /** The unfinished frame is whole. */
  finishFrame(id: number, crc: number): void {
    const incoming = this.#sourceWithId(id);
    const { description, writer } = incoming.unfinished!;
    incoming.unfinished = undefined;
    // What is refused already was told when it was.
    if (writer instanceof FramesError) return this.#onFrameEnded(incoming, description, writer);
    const outcome = catchFrameError(() => writer.finish(crc));
    if (outcome instanceof Promise) {
      const resolve = this.#outcomes.addPending();
      outcome
        .then((resolved) => {
          if (resolved instanceof FramesError) this.#refuse(id, incoming, description, resolved);
          resolve(resolved);
          this.#hooks.onFrameEnded(incoming.name, description, resolved);
          this.#hooks.onLateOutcome();
        })
        .catch((error: unknown) => this.#hooks.onError(error));
      return;
    }
    if (outcome instanceof FramesError) this.#refuse(id, incoming, description, outcome);
    this.#onFrameEnded(incoming, description, outcome);
  }

  /** A frame ended, and its outcome is known. */
  #onFrameEnded(
    incoming: IncomingSource,
    description: FrameDescription,
    outcome: Outcome | "aborted",
  ): void {
    this.#outcomes.add(outcome);
    if (outcome !== "aborted") this.#hooks.onFrameEnded(incoming.name, description, outcome);
  }

  /** The unfinished frame will not be finished. */
  abortFrame(id: number, sequence: number): void {
    const incoming = this.#sourceWithId(id);
    const { unfinished } = incoming;
    if (unfinished?.description.sequence !== sequence) throw unexpectedMessage(MessageType.abort);
    incoming.unfinished = undefined;
    const { description, writer } = unfinished;
    if (!(writer instanceof FramesError)) writer.discard();
    this.#onFrameEnded(incoming, description, writer instanceof FramesError ? writer : "aborted");
  }

  /** Numbers will never come. */
  recordLoss(id: number, body: ControlBodies[typeof MessageType.lost]): void {
    const incoming = this.#sourceWithId(id);
    const { error: number, message: text } = body;
    const reason = text === undefined ? undefined : truncateMessage(text);
    const error = new FramesError(errorByNumber(number, "loss"), reason);
    this.hasUnsavedLosses = true;
    const store = this.#openStore(incoming);
    let frames = 0;
    for (const [first, last] of body.ranges) {
      frames = Math.min(frames + last - first + 1, Number.MAX_SAFE_INTEGER);
      if (!(store instanceof FramesError)) store.recordLoss(first, last, error);
    }
    this.#hooks.onLost(incoming.name, frames, error, body.ranges);
  }

  /** The letters of ANSWER for these frames. */
  answerOffer(id: number, offered: readonly OfferEntry[]): string {
    const store = this.#openStore(this.#sourceWithId(id));
    // What is refused is refused with its reason when it comes.
    if (store instanceof FramesError) return "w".repeat(offered.length);
    const statuses = store.compare(
      offered.map(([name, size, captured, sequence, crc32]) => {
        return { name, size, captured: BigInt(captured), sequence, crc32 };
      }),
    );
    let letters = "";
    for (const status of statuses) {
      if (status === "stored" || status === "removed") this.#foundCount++;
      letters += letterByStatus.get(status)!;
    }
    return letters;
  }

  /** No more frames come. */
  end(): void {
    for (const { store } of this.#sources.values()) {
      if (store !== undefined && !(store instanceof FramesError)) store.flushSoon?.();
    }
  }

  /** Discards what is unfinished. */
  close(): void {
    for (const incoming of this.#sources.values()) {
      const writer = incoming.unfinished?.writer;
      incoming.unfinished = undefined;
      if (writer !== undefined && !(writer instanceof FramesError)) writer.discard();
    }
  }
}

/**
 * Whose frames those of a source are, by the HELLO that opened the conversation.
 *
 * @param key what the sender's key is called
 */
export function toSourceInfo(
  { role, session, conflict, again, revises, durable }: Hello,
  key: string | undefined,
  stream: string,
  source: SourceDeclaration,
): SourceInfo {
  const { name, raw } = source;
  const frames = { stream, source: name, ...(raw === undefined ? {} : { raw }) };
  // What a server gives out keeps the session that it came with.
  if (role === "receive") return { ...frames, session: source.session ?? session, isCopy: true };
  return {
    ...frames,
    session,
    ...(key === undefined ? {} : { key }),
    ...(conflict === undefined ? {} : { conflict }),
    ...(again === undefined ? {} : { resendRemoved: again }),
    ...(revises === undefined ? {} : { replacesOwn: revises }),
    ...(durable === undefined ? {} : { durable }),
  };
}

/** A frame or source that cannot be stored is refused; an error of the store as a whole is not its own. */
function catchFrameError<T>(act: () => T): T | FramesError {
  try {
    return act();
  } catch (error) {
    if (error instanceof FramesError && isFrameError(error)) return error;
    throw error;
  }
}

/** Whether the error concerns one frame (SPEC section 11), and not the store as a whole. */
function isFrameError(error: FramesError): boolean {
  return error.wireCode >= 32;
}
