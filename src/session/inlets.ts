/** The sources that one sender declared, and their frames on the way into the store. */
import { errorByNumber, FramesError, heard } from "../errors.ts";
import type {
  FrameDescription,
  FrameOrigin,
  FrameStore,
  FrameWriter,
  Outcome,
  RawShape,
  SourceStore,
  Standing,
} from "../frame.ts";
import {
  type ControlBodies,
  type Hello,
  type OfferEntry,
  type SourceDeclaration,
  standingLetters,
  Type,
  unexpected,
  type Welcome,
} from "../wire/messages.ts";
import { tooLargeError } from "./outlet.ts";
import type { Tally } from "./tally.ts";

/** What an id stands for: a source, or why it is refused. */
interface Inlet {
  readonly stream: string;
  readonly name: string;
  readonly raw: RawShape | undefined;
  /** The session that it came from, where a server gives it out. */
  readonly session: string | undefined;
  /** Opened when it is first needed: a peer may declare many that it never sends. */
  store: SourceStore | FramesError | undefined;
  unfinished: Unfinished | undefined;
}

interface Unfinished {
  readonly description: FrameDescription;
  /** Where its bytes go, or why it is refused. */
  writer: FrameWriter | FramesError;
}

/** What inlets need of their conversation. */
export interface InletHooks {
  /** Whose frames those of a source are. */
  originOf(stream: string, source: SourceDeclaration): FrameOrigin;
  /** Says REFUSED. */
  refuse(id: number, sequence: number, error: FramesError): void;
  /** A frame ended, and what became of it. */
  ended(source: string, frame: FrameDescription, outcome: Outcome): void;
  lost(
    source: string,
    frames: number,
    error: FramesError,
    ranges: readonly (readonly [first: number, last: number])[],
  ): void;
  /** The store finished a frame later. */
  settled(): void;
  /** The store failed later. */
  failed(error: unknown): void;
}

/** Characters of the name of a refused source that are kept, to say what was refused. */
const longestKept = 100;

const letterOf = new Map<Standing, string>(
  [...standingLetters].map(([letter, standing]) => [standing, letter]),
);

export class Inlets {
  readonly #store: FrameStore;
  readonly #limits: Welcome["limits"];
  readonly #tally: Tally;
  readonly #hooks: InletHooks;
  readonly #inlets = new Map<number, Inlet>();
  #found = 0;
  /** Whether losses were recorded that no flush has made last. */
  hasUnsavedLosses = false;

  constructor(store: FrameStore, limits: Welcome["limits"], tally: Tally, hooks: InletHooks) {
    this.#store = store;
    this.#limits = limits;
    this.#tally = tally;
    this.#hooks = hooks;
  }

  /** Offered frames that need not be sent. */
  get found(): number {
    return this.#found;
  }

  /** Whether nothing was declared. */
  get isEmpty(): boolean {
    return this.#inlets.size === 0;
  }

  /** What is declared. */
  get declared(): Iterable<{ readonly stream: string; readonly name: string }> {
    return this.#inlets.values();
  }

  /** Number of the unfinished frame of a source. */
  unfinishedOf(id: number): number | undefined {
    return this.#inlets.get(id)?.unfinished?.description.sequence;
  }

  /**
   * What the id stood for before.
   *
   * @throws {FramesError} if it cannot be declared now
   */
  checkDeclaration(id: number): Inlet | undefined {
    const known = this.#inlets.get(id);
    const { sources } = this.#limits;
    if (known === undefined && this.#inlets.size >= sources) {
      throw new FramesError("limit", `Cannot take another source: ${sources} are the most`);
    }
    if (known?.unfinished !== undefined) throw unexpected(Type.source);
    return known;
  }

  /** The id stands for this source of `stream` from now on. */
  open(id: number, stream: string, { name, raw, session }: SourceDeclaration): void {
    const refusal = attempt(() => this.#store.check(stream, name));
    // What is refused may have any name.
    const kept = refusal instanceof FramesError ? name.slice(0, longestKept) : name;
    const store = refusal instanceof FramesError ? refusal : undefined;
    this.#inlets.set(id, { stream, name: kept, raw, session, store, unfinished: undefined });
  }

  /** Where the frames of a source go, or why they go nowhere. */
  #storeOf(inlet: Inlet): SourceStore | FramesError {
    const { stream, name, raw, session } = inlet;
    return (inlet.store ??= attempt(() => {
      return this.#store.open(
        this.#hooks.originOf(stream, {
          name,
          ...(raw === undefined ? {} : { raw }),
          ...(session === undefined ? {} : { session }),
        }),
      );
    }));
  }

  /** A frame, for those who want to see the conversation. */
  lineOf(id: number, { sequence, name, size }: FrameDescription): string {
    return `FRAME ${this.nameOf(id)} ${sequence} ${name} ${size} bytes`;
  }

  /** The source that an id stands for. */
  nameOf(id: number): string {
    return this.#inlet(id).name;
  }

  #inlet(id: number): Inlet {
    const inlet = this.#inlets.get(id);
    if (inlet !== undefined) return inlet;
    throw new FramesError("protocol", `Cannot accept a message of source ${id}: it has no SOURCE`);
  }

  /** @throws {FramesError} `limit` if so many frames are unfinished as may be */
  checkRoom(unfinished: number): void {
    const most = this.#limits.unfinished;
    if (unfinished < most) return;
    throw new FramesError("limit", `Cannot begin another frame: ${most} are unfinished`);
  }

  /** A frame begins. */
  begin(id: number, description: FrameDescription): void {
    const inlet = this.#inlet(id);
    const store = this.#storeOf(inlet);
    let writer: FrameWriter | FramesError;
    if (store instanceof FramesError) {
      writer = store;
    } else if (description.size > this.#limits.frame) {
      writer = tooLargeError(description.size, this.#limits.frame);
    } else {
      writer = attempt(() => store.begin(description));
    }
    inlet.unfinished = { description, writer };
    if (writer instanceof FramesError) this.#refuse(id, inlet, description, writer);
  }

  #refuse(id: number, inlet: Inlet, description: FrameDescription, error: FramesError): void {
    const { sequence } = description;
    this.#hooks.refuse(id, sequence, error);
    // A conflict is no loss: something is stored under that name.
    const store = this.#storeOf(inlet);
    if (error.code === "conflict" || store instanceof FramesError) return;
    store.lost(sequence, sequence, error);
  }

  /** Bytes of the unfinished frame. */
  payload(id: number, bytes: Uint8Array): void {
    const inlet = this.#inlet(id);
    const unfinished = inlet.unfinished;
    if (unfinished === undefined) throw unexpected(Type.data);
    const { writer } = unfinished;
    if (writer instanceof FramesError) return;
    const failure = attempt(() => writer.write(bytes));
    if (!(failure instanceof FramesError)) return;
    writer.discard();
    unfinished.writer = failure;
    this.#refuse(id, inlet, unfinished.description, failure);
  }

  /** The unfinished frame is whole. */
  complete(id: number, crc: number): void {
    const inlet = this.#inlet(id);
    const { description, writer } = inlet.unfinished!;
    inlet.unfinished = undefined;
    // What is refused already was told when it was.
    if (writer instanceof FramesError) return this.#ended(inlet, description, writer);
    const outcome = attempt(() => writer.finish(crc));
    if (outcome instanceof Promise) {
      const settle = this.#tally.addPending();
      outcome
        .then((settled) => {
          if (settled instanceof FramesError) this.#refuse(id, inlet, description, settled);
          settle(settled);
          this.#hooks.ended(inlet.name, description, settled);
          this.#hooks.settled();
        })
        .catch((error: unknown) => this.#hooks.failed(error));
      return;
    }
    if (outcome instanceof FramesError) this.#refuse(id, inlet, description, outcome);
    this.#ended(inlet, description, outcome);
  }

  /** A frame ended, and its outcome is known. */
  #ended(inlet: Inlet, description: FrameDescription, outcome: Outcome | "aborted"): void {
    this.#tally.add(outcome);
    if (outcome !== "aborted") this.#hooks.ended(inlet.name, description, outcome);
  }

  /** The unfinished frame will not be finished. */
  abort(id: number, sequence: number): void {
    const inlet = this.#inlet(id);
    const { unfinished } = inlet;
    if (unfinished?.description.sequence !== sequence) throw unexpected(Type.abort);
    inlet.unfinished = undefined;
    const { description, writer } = unfinished;
    if (!(writer instanceof FramesError)) writer.discard();
    this.#ended(inlet, description, writer instanceof FramesError ? writer : "aborted");
  }

  /** Numbers will never come. */
  lost(id: number, body: ControlBodies[typeof Type.lost]): void {
    const inlet = this.#inlet(id);
    const { error: number, message: said } = body;
    const reason = said === undefined ? undefined : heard(said);
    const error = new FramesError(errorByNumber(number, "loss"), reason);
    this.hasUnsavedLosses = true;
    const store = this.#storeOf(inlet);
    let frames = 0;
    for (const [first, last] of body.ranges) {
      frames = Math.min(frames + last - first + 1, Number.MAX_SAFE_INTEGER);
      if (!(store instanceof FramesError)) store.lost(first, last, error);
    }
    this.#hooks.lost(inlet.name, frames, error, body.ranges);
  }

  /** The letters of ANSWER for these frames. */
  answer(id: number, offered: readonly OfferEntry[]): string {
    const store = this.#storeOf(this.#inlet(id));
    // What is refused is refused with its reason when it comes.
    if (store instanceof FramesError) return "w".repeat(offered.length);
    const standings = store.compare(
      offered.map(([name, size, captured, sequence, crc32]) => {
        return { name, size, captured: BigInt(captured), sequence, crc32 };
      }),
    );
    let letters = "";
    for (const standing of standings) {
      if (standing === "stored" || standing === "moved") this.#found++;
      letters += letterOf.get(standing)!;
    }
    return letters;
  }

  /** No more frames come. */
  end(): void {
    for (const { store } of this.#inlets.values()) {
      if (store !== undefined && !(store instanceof FramesError)) store.ending?.();
    }
  }

  /** Discards what is unfinished. */
  close(): void {
    for (const inlet of this.#inlets.values()) {
      const writer = inlet.unfinished?.writer;
      inlet.unfinished = undefined;
      if (writer !== undefined && !(writer instanceof FramesError)) writer.discard();
    }
  }
}

/**
 * Whose frames those of a source are, by the HELLO that opened the conversation.
 *
 * @param key what the sender's key is called
 */
export function originOf(
  { role, session, conflict, again, revises, durable }: Hello,
  key: string | undefined,
  stream: string,
  source: SourceDeclaration,
): FrameOrigin {
  const { name, raw } = source;
  const frames = { stream, source: name, ...(raw === undefined ? {} : { raw }) };
  // What a server gives out keeps the session that it came with.
  if (role === "receive") return { ...frames, session: source.session ?? session, mirrors: true };
  return {
    ...frames,
    session,
    ...(key === undefined ? {} : { key }),
    ...(conflict === undefined ? {} : { conflict }),
    ...(again === undefined ? {} : { again }),
    ...(revises === undefined ? {} : { revises }),
    ...(durable === undefined ? {} : { durable }),
  };
}

/** A frame or source that cannot be stored is refused; an error of the store as a whole is not its own. */
function attempt<T>(act: () => T): T | FramesError {
  try {
    return act();
  } catch (error) {
    if (error instanceof FramesError && isFrameError(error)) return error;
    throw error;
  }
}

/** Whether the error concerns one frame (SPEC section 11), and not the store as a whole. */
function isFrameError(error: FramesError): boolean {
  return error.wire >= 32;
}
