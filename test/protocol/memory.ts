/**
 * Sender and receiver in memory, with a store, sources and a link on a fake clock. Runs are
 * deterministic, and simulated time takes no real time.
 */
import { crc32 } from "node:zlib";
import { FramesError } from "../../src/errors.ts";
import type {
  Frame,
  FrameDescription,
  SourceInfo,
  FrameSource,
  FrameStore,
  FrameWriter,
  Loss,
  OfferedFrame,
  Outcome,
  SourceStore,
  OfferStatus,
} from "../../src/frame.ts";
import type { ReceiverLimits } from "../../src/protocol/receive/receiver-events.ts";
import { OutgoingSource } from "../../src/protocol/send/outgoing-source.ts";
import type { SourceProgress, Undelivered } from "../../src/protocol/progress.ts";
import { Sender } from "../../src/protocol/send/sender.ts";
import { outgoingBufferBytes } from "../../src/protocol/send/write-batch.ts";
import type { Hello, Welcome } from "../../src/wire/messages.ts";
import { decodeAll, misplacement, WindowModel } from "../wire/oracle.ts";
import {
  type DecodedMessage,
  type FrameMessage,
  type ReceiptMessage,
  type,
} from "../wire/vectors.ts";
import { ServerEnd } from "./server-end.ts";

/** A frame in the memory store. */
export interface StoredFrame {
  readonly origin: SourceInfo;
  readonly description: FrameDescription;
  readonly bytes: Uint8Array;
  readonly crc: number;
  /** Whether a consumer has removed it since. */
  isMoved?: boolean;
}

/** Options that make a memory store fail or wait. */
export interface StoreOptions {
  /** Returns an error to refuse a source. */
  refuseSource?: (origin: SourceInfo) => FramesError | undefined;
  /** Returns an error to refuse a frame when it begins. */
  refuse?: (description: FrameDescription) => FramesError | undefined;
  /** Returns an error to fail a write after `written` bytes of a frame. */
  failWrite?: (description: FrameDescription, written: number) => FramesError | undefined;
  /** Delays storing a complete frame, or replaces its outcome. Default: stores at once. */
  finish?: (description: FrameDescription) => Promise<Outcome | undefined> | undefined;
  /** Delays a flush. Default: completes at once. */
  flush?: () => Promise<void> | undefined;
  isDurable?: boolean;
}

/** A store that keeps frames in memory and records its calls. */
export class MemoryStore implements FrameStore {
  readonly location = "memory";
  readonly isDurable: boolean;
  readonly options: StoreOptions;
  readonly frames: StoredFrame[] = [];
  readonly losses: { source: string; first: number; last: number; code: string }[] = [];
  readonly opened: SourceInfo[] = [];
  /** Names of all frames begun. */
  readonly begun: string[] = [];
  /** Number of writers neither finished nor discarded. */
  writers = 0;
  /** Total bytes written. */
  written = 0;
  /** Comparisons of offered frames with their results. */
  readonly compared: { name: string; crc: number | undefined; standing: OfferStatus }[] = [];
  readonly #byPath = new Map<string, StoredFrame>();
  readonly #losses = new Set<string>();

  constructor(options: StoreOptions = {}) {
    this.options = options;
    this.isDurable = options.isDurable ?? false;
  }

  isStreamEmpty(stream: string): boolean {
    return !this.frames.some(({ origin }) => origin.stream === stream);
  }

  checkNames(stream: string, source: string): void {
    const refusal = this.options.refuseSource?.({ stream, source, session: "" });
    if (refusal !== undefined) throw refusal;
  }

  open(origin: SourceInfo): SourceStore {
    const refusal = this.options.refuseSource?.(origin);
    if (refusal !== undefined) throw refusal;
    this.opened.push(origin);
    return {
      begin: (description) => {
        const reason = this.options.refuse?.(description);
        if (reason !== undefined) throw reason;
        this.begun.push(description.name);
        return new MemoryWriter(this, origin, description);
      },
      compare: (offered) =>
        offered.map((one) => {
          const standing = this.#compare(origin, one);
          this.compared.push({ name: one.name, crc: one.crc32, standing });
          return standing;
        }),
      recordLoss: (first, last, { code }) => {
        const { stream, source, session } = origin;
        // After a reconnect the same range of a session is reported again.
        const key = JSON.stringify([stream, source, session, first, last]);
        if (this.#losses.has(key)) return;
        this.#losses.add(key);
        this.losses.push({ source, first, last, code });
      },
    };
  }

  flush(): void | Promise<void> {
    return this.options.flush?.();
  }

  /** Removes a stored frame, as a consumer would. */
  moveAway(source: string, name: string): void {
    for (const frame of this.frames) {
      if (frame.origin.source === source && frame.description.name === name) frame.isMoved = true;
    }
  }

  /** Returns the answer to an offered frame (SPEC section 8). */
  #compare(
    origin: SourceInfo,
    { name, size, captured, sequence, crc32 }: OfferedFrame,
  ): OfferStatus {
    const known = this.#byPath.get(pathOf(origin, name));
    if (known === undefined) return "wanted";
    const { description } = known;
    let isSame = description.size === size;
    if (isSame && crc32 === undefined) {
      const apart = description.captured - captured;
      if (apart <= -1000n || apart >= 1000n) return "needsChecksum";
    } else {
      isSame &&= known.crc === crc32;
    }
    if (known.isMoved === true) {
      const isOwn = known.origin.session === origin.session && description.sequence === sequence;
      return isSame && (origin.resendRemoved !== true || isOwn) ? "removed" : "wanted";
    }
    if (isSame) return "stored";
    return origin.conflict === "replace" ? "wanted" : "conflict";
  }

  put(frame: StoredFrame): Outcome {
    const path = pathOf(frame.origin, frame.description.name);
    const known = this.#byPath.get(path);
    if (known !== undefined && known.isMoved !== true) {
      if (known.crc === frame.crc) return "present";
      if (frame.origin.conflict !== "replace") {
        return new FramesError("conflict", "other bytes are stored under this name");
      }
      this.frames.splice(this.frames.indexOf(known), 1);
    }
    this.#byPath.set(path, frame);
    this.frames.push(frame);
    return "stored";
  }
}

function pathOf({ stream, source }: SourceInfo, name: string): string {
  return `${stream}/${source}/${name}`;
}

class MemoryWriter implements FrameWriter {
  readonly #store: MemoryStore;
  readonly #origin: SourceInfo;
  readonly #description: FrameDescription;
  #parts: Uint8Array[] | undefined = [];
  #length = 0;

  constructor(store: MemoryStore, origin: SourceInfo, description: FrameDescription) {
    this.#store = store;
    this.#origin = origin;
    this.#description = description;
    store.writers++;
  }

  write(bytes: Uint8Array): void {
    if (this.#parts === undefined) throw new Error("written after its end");
    this.#length += bytes.length;
    const failure = this.#store.options.failWrite?.(this.#description, this.#length);
    if (failure !== undefined) throw failure;
    this.#store.written += bytes.length;
    this.#parts.push(bytes);
  }

  finish(crc: number): Outcome | Promise<Outcome> {
    if (this.#parts === undefined) throw new Error("finished after its end");
    const bytes = Buffer.concat(this.#parts);
    this.#end();
    if (bytes.length !== this.#description.size) throw new Error("finished with another size");
    if (crc32(bytes) !== crc) throw new Error("finished with another CRC-32");
    const frame = { origin: this.#origin, description: this.#description, bytes, crc };
    const later = this.#store.options.finish?.(this.#description);
    return later?.then((outcome) => outcome ?? this.#store.put(frame)) ?? this.#store.put(frame);
  }

  discard(): void {
    this.#end();
  }

  #end(): void {
    if (this.#parts === undefined) throw new Error("ended twice");
    this.#parts = undefined;
    this.#store.writers--;
  }
}

/** Options of a `MemoryFrame`. */
export interface FrameOptions {
  name?: string;
  captured?: bigint;
  metadata?: string;
  isKey?: boolean;
  /** Number of times that reading fails before it succeeds. */
  failures?: number;
  /** Bytes that `pieces` yields before it fails. */
  failAfter?: number;
  /** Size of the pieces in bytes. */
  piece?: number;
  /** Delays each piece, as a slow disk would. */
  wait?: () => Promise<void>;
}

/** A frame in memory. Small frames have different bytes, so that mixed-up frames are detected. */
export class MemoryFrame implements Frame {
  readonly name: string;
  readonly sequence: number;
  readonly captured: bigint;
  readonly metadata: string;
  readonly isKey: boolean | undefined;
  readonly bytes: Uint8Array;
  readonly options: FrameOptions;
  #failures: number;

  constructor(sequence: number, bytes: Uint8Array | number, options: FrameOptions = {}) {
    this.sequence = sequence;
    this.options = options;
    this.name = options.name ?? `f${sequence}`;
    this.captured = options.captured ?? BigInt(sequence);
    this.metadata = options.metadata ?? "";
    this.isKey = options.isKey;
    this.bytes = typeof bytes === "number" ? bytesFor(sequence, bytes) : bytes;
    this.#failures = options.failures ?? 0;
  }

  get size(): number {
    return this.bytes.length;
  }

  #fails(): boolean {
    return this.#failures > 0 && this.#failures-- > 0;
  }

  read(into: Uint8Array): void {
    if (this.#fails()) throw new FramesError("changed", "it changed");
    if (into.length !== this.bytes.length) throw new Error("read into another size");
    into.set(this.bytes);
  }

  async *pieces(): AsyncGenerator<Uint8Array, undefined> {
    const { piece = 1 << 20, failAfter = 0, wait } = this.options;
    const fails = this.#fails();
    for (let at = 0; at < this.bytes.length; at += piece) {
      if (wait !== undefined) await wait();
      if (fails && at >= failAfter) throw new FramesError("changed", "it changed");
      yield this.bytes.slice(at, at + piece);
    }
    return undefined;
  }
}

function bytesFor(sequence: number, size: number): Uint8Array {
  const bytes = new Uint8Array(size);
  for (let index = 0; index < Math.min(size, 4096); index++) bytes[index] = sequence * 31 + index;
  return bytes;
}

/** Returns `count` frames of one size, numbered from 1. */
export function framesOf(count: number, size: number): MemoryFrame[] {
  return Array.from({ length: count }, (_, index) => new MemoryFrame(index + 1, size));
}

export function lossOf(first: number, last = first): Loss {
  return { first, last, what: `f${first}`, error: new FramesError("dropped") };
}

/** A source of frames in memory. An item may be a promise, as from a camera. */
export class MemorySource implements FrameSource {
  readonly name: string;
  readonly #items: Iterator<Frame | Loss | Promise<Frame | Loss | undefined>>;
  /** Number of attempts to read a frame. */
  readonly #attempts: number;
  readonly #tried = new Map<Frame, number>();
  readonly isResumable: boolean;
  closed = 0;
  /** Number of items taken, and how many of these were only described. */
  taken = 0;
  described = 0;

  /** @param resumes whether frames are offered first, as those of a folder */
  constructor(
    name: string,
    items: Iterable<Frame | Loss | Promise<Frame | Loss | undefined>>,
    { attempts = 3, resumes = false } = {},
  ) {
    this.name = name;
    this.#items = items[Symbol.iterator]();
    this.#attempts = attempts;
    this.isResumable = resumes;
  }

  next(offered = false): Frame | Loss | undefined | Promise<Frame | Loss | undefined> {
    const { done, value } = this.#items.next();
    if (done === true) return undefined;
    this.taken++;
    if (offered) this.described++;
    return value;
  }

  retry(frame: Frame, error: FramesError): Frame | Loss {
    const tried = (this.#tried.get(frame) ?? 0) + 1;
    this.#tried.set(frame, tried);
    if (tried < this.#attempts) return frame;
    const { sequence, name: what } = frame;
    return { first: sequence, last: sequence, what, error };
  }

  close(): void {
    this.closed++;
  }
}

/** A fake clock in milliseconds. Runs scheduled actions in order of time. */
export class Clock {
  readonly start = 1_700_000_000_000;
  now = this.start;
  #order = 0;
  readonly #due: { at: number; order: number; act: () => void }[] = [];

  after(milliseconds: number, act: () => void): void {
    const entry = { at: this.now + milliseconds, order: this.#order++, act };
    // Search from the end, because most entries are due last.
    let index = this.#due.length;
    while (index > 0 && this.#due[index - 1]!.at > entry.at) index--;
    this.#due.splice(index, 0, entry);
  }

  wait(milliseconds: number): Promise<void> {
    return new Promise((resolve) => this.after(milliseconds, resolve));
  }

  /** Advances the clock by up to this many milliseconds, or until `isOver`. */
  async run(milliseconds: number, isOver: () => boolean): Promise<void> {
    const until = this.now + milliseconds;
    while (!isOver()) {
      // Let promises that are settled at this time continue.
      await new Promise((resolve) => setImmediate(resolve));
      if (isOver()) return;
      const next = this.#due[0];
      if (next === undefined || next.at > until) break;
      this.#due.shift();
      this.now = next.at;
      next.act();
    }
    if (!isOver()) this.now = until;
  }
}

/** Splits arriving bytes into the chunks that are read. */
export type Chunker = (bytes: Uint8Array) => Iterable<Uint8Array>;

export const whole: Chunker = (bytes) => [bytes];

export const everyByte: Chunker = function* (bytes) {
  for (let at = 0; at < bytes.length; at++) yield bytes.subarray(at, at + 1);
};

/** Returns a chunker with random lengths up to `most`. */
export function randomly(below: (end: number) => number, most: number): Chunker {
  return function* (bytes) {
    for (let at = 0; at < bytes.length;) {
      const length = 1 + below(most);
      yield bytes.subarray(at, at + length);
      at += length;
    }
  };
}

export const grants: ReceiverLimits = {
  window: { bytes: 64 << 20, frames: 4096 },
  limits: { frame: 64 << 20, sources: 64, unfinished: 8 },
};

export const hello: Hello = {
  role: "send",
  session: "00112233445566778899aabbccddeeff",
  stream: "s",
};

/** Breaks a link after this many bytes of one direction have arrived, including prefaces. */
export interface Cut {
  way: "said" | "answered";
  after: number;
}

export interface LinkOptions {
  /** Sources to send. Alternative: `outlets`, which may have sent frames before. */
  sources?: readonly FrameSource[];
  outlets?: readonly OutgoingSource[];
  store?: MemoryStore;
  grants?: ReceiverLimits;
  /** One-way delay in milliseconds. */
  delay?: number;
  timeout?: number;
  chunker?: Chunker;
  clock?: Clock;
  hello?: Partial<Hello>;
  checksum?: boolean;
  cut?: Cut | undefined;
  /** Modifies in place what the sender sends. */
  tamper?: (bytes: Uint8Array) => void;
  /** Returns the receiver's reply to HELLO. */
  onHello?: (hello: Hello) => Pick<Welcome, "fresh" | "store" | "software">;
  claim?: (stream: string, source: string) => void | Promise<void>;
  /** Whether the sender must begin no frames. Call `resume` when this changes. */
  isHeld?: () => boolean;
}

/** A message, and when it was sent, in milliseconds since the first byte of the sender. */
export interface Said {
  at: number;
  message: DecodedMessage;
}

export function outletsOf(sources: readonly FrameSource[]): OutgoingSource[] {
  return sources.map((source, index) => new OutgoingSource(index + 1, source));
}

/** A sender and a receiver joined by a link with delay and unlimited bandwidth. */
export class Link {
  readonly clock: Clock;
  readonly started: number;
  readonly outlets: readonly OutgoingSource[];
  readonly sender: Sender;
  readonly receiver: ServerEnd;
  readonly store: MemoryStore;
  readonly undelivered: Undelivered[] = [];
  /** Frames that the sender knows to be stored at the server. */
  readonly delivered: { source: string; name: string; crc: number }[] = [];
  readonly outcomes: { source: string; name: string; sequence: number; outcome: string }[] = [];
  readonly lost: { source: string; frames: number; code: string }[] = [];
  senderError: FramesError | undefined;
  receiverError: FramesError | undefined;
  /** Whether both directions discard everything. */
  isCut = false;
  /** Called after every step of either side. */
  onStep: (() => void) | undefined;
  readonly #delay: number;
  readonly #chunker: Chunker;
  readonly #cut: Cut | undefined;
  readonly #tamper: ((bytes: Uint8Array) => void) | undefined;
  readonly #buffer = new Uint8Array(outgoingBufferBytes);
  #pumping = false;
  #settling = false;
  #closed = false;
  /** Bytes that arrived in each direction. */
  readonly #arrived = { said: 0, answered: 0 };
  /** Bytes sent by each side, and a log of their order as seen by the sender. */
  readonly #said: Uint8Array[] = [];
  readonly #answered: Uint8Array[] = [];
  readonly #log: { at: number; way: "said" | "answered" | "heard"; bytes: number }[] = [];

  constructor(options: LinkOptions) {
    this.clock = options.clock ?? new Clock();
    this.started = this.clock.now;
    this.store = options.store ?? new MemoryStore();
    this.outlets = options.outlets ?? outletsOf(options.sources ?? []);
    this.#delay = options.delay ?? 0;
    this.#chunker = options.chunker ?? whole;
    this.#cut = options.cut;
    this.#tamper = options.tamper;
    const timeout = options.timeout ?? 30_000;
    const now = this.clock.now;
    this.receiver = new ServerEnd(this.store, options.grants ?? grants, timeout, now, {
      onHello: (said) =>
        options.onHello?.(said) ?? { fresh: this.store.isStreamEmpty(said.stream) },
      ...(options.claim === undefined ? {} : { acquireSource: options.claim }),
      reportsStored: true,
      onEvent: (event) => {
        if (event.type === "lost") {
          const { source, frames, error } = event;
          return void this.lost.push({ source, frames, code: error.code });
        }
        if (event.type !== "frame") return;
        const { source, frame, outcome } = event;
        const text = typeof outcome === "string" ? outcome : outcome.code;
        this.outcomes.push({ source, name: frame.name, sequence: frame.sequence, outcome: text });
      },
      onFlushNeeded: () => this.#settleLater(),
      onError: (error) => {
        if (!(error instanceof FramesError)) throw error;
        if (!this.#closed && this.receiverError === undefined) this.failReceiver(error);
      },
    });
    this.sender = new Sender({
      sources: this.outlets,
      hello: { ...hello, ...options.hello },
      checksum: options.checksum ?? false,
      timeoutMs: timeout,
      now,
      reports: { stored: true },
      onWritable: () => this.#pump(),
      ...(options.isHeld === undefined ? {} : { isPaused: options.isHeld }),
    });
    this.#pump();
    this.#tick();
  }

  /** Progress of each source. */
  get progress(): readonly SourceProgress[] {
    return this.outlets.map(({ progress }) => progress);
  }

  /** Stops the delivery, as the caller of a sender does. */
  stop(): void {
    for (const outlet of this.outlets) outlet.stop();
    this.#pump();
  }

  /** Resumes a paused sender. */
  resume(): void {
    this.#pump();
  }

  /** Milliseconds since the start. */
  get time(): number {
    return this.clock.now - this.started;
  }

  get isOver(): boolean {
    return this.sender.done !== undefined || this.senderError !== undefined;
  }

  /** Runs until the sender is done or failed, or this many milliseconds have passed. */
  async run(milliseconds = 120_000): Promise<this> {
    await this.clock.run(milliseconds, () => this.isOver || this.sender.failure !== undefined);
    if (this.sender.failure !== undefined) {
      this.close();
      throw this.sender.failure.error;
    }
    if (this.isOver) this.close();
    return this;
  }

  /** Closes both sides. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    if (this.sender.done === undefined) this.sender.returnToSources();
    this.#takeEvents();
    this.receiver.close();
  }

  #takeEvents(): void {
    for (const event of this.sender.takeEvents()) {
      if (event.type === "undelivered") this.undelivered.push(event.report);
      if (event.type !== "stored") continue;
      const { source, frame, crc } = event;
      this.delivered.push({ source: source.name, name: frame.name, crc });
    }
  }

  /** Breaks the connection and notifies both sides. */
  break(): void {
    if (this.#closed) return;
    this.isCut = true;
    this.senderError ??= new FramesError("network");
    this.close();
  }

  #tick(): void {
    this.clock.after(1000, () => {
      if (this.#closed) return;
      this.#guardReceiver(() => this.receiver.tick(this.clock.now));
      this.#answer();
      this.#guardSender(() => this.sender.tick(this.clock.now));
      this.#tick();
    });
  }

  #guardSender(act: () => void): void {
    if (this.senderError !== undefined) return;
    try {
      act();
    } catch (error) {
      if (!(error instanceof FramesError)) throw error;
      this.senderError = error;
    } finally {
      this.#takeEvents();
    }
  }

  #guardReceiver(act: () => void): void {
    if (this.receiverError !== undefined) return;
    try {
      act();
    } catch (error) {
      if (!(error instanceof FramesError)) throw error;
      this.failReceiver(error);
    }
  }

  /** Reports an error at the receiver, after settling the frames that ended before. */
  failReceiver(error: FramesError): void {
    this.receiverError = error;
    this.receiver.stop();
    if (error.code !== "store") this.receiver.ack(this.clock.now);
    this.receiver.fail(error);
    this.#answer();
  }

  #note(way: "said" | "answered" | "heard", bytes: number): void {
    this.#log.push({ at: this.clock.now - this.started, way, bytes });
  }

  #pump(): void {
    // Also called recursively, when the outer loop continues anyway, and first from the
    // constructor.
    if (this.#pumping || this.#closed || this.sender === undefined) return;
    this.#pumping = true;
    try {
      this.#guardSender(() => {
        while (true) {
          const { length, piece } = this.sender.transmit(this.#buffer, this.clock.now);
          if (length === 0) break;
          const bytes = Buffer.concat([
            this.#buffer.subarray(0, length),
            piece ?? new Uint8Array(0),
          ]);
          this.#said.push(bytes);
          this.#note("said", bytes.length);
          this.clock.after(this.#delay, () => this.#arrive(bytes));
        }
      });
    } finally {
      this.#pumping = false;
    }
    this.onStep?.();
  }

  /** Returns which of these bytes arrive, and whether the link breaks then. */
  #reach(way: Cut["way"], bytes: Uint8Array): { bytes: Uint8Array; breaks: boolean } {
    const before = this.#arrived[way];
    this.#arrived[way] += bytes.length;
    if (this.#cut?.way !== way || this.#arrived[way] < this.#cut.after) {
      return { bytes, breaks: false };
    }
    return { bytes: bytes.subarray(0, this.#cut.after - before), breaks: true };
  }

  #arrive(sent: Uint8Array): void {
    if (this.isCut || this.#closed) return;
    const { bytes, breaks } = this.#reach("said", sent);
    const given = this.#tamper === undefined ? bytes : new Uint8Array(bytes);
    this.#tamper?.(given);
    for (const chunk of this.#chunker(given)) {
      this.#guardReceiver(() => this.receiver.receive(chunk, this.clock.now));
      if (this.receiverError !== undefined) break;
      if (this.receiver.isFlushDue()) this.#settle();
      this.#answer();
    }
    if (breaks) return this.break();
    if (this.receiverError !== undefined) return;
    if (this.receiver.needsFlush) this.#settleLater();
    this.onStep?.();
  }

  /** Sends receipts once all bytes that arrive at this time are processed. */
  #settleLater(): void {
    if (this.#settling) return;
    this.#settling = true;
    this.clock.after(0, () => {
      this.#settling = false;
      this.#settle();
    });
  }

  #settle(): void {
    if (this.receiverError !== undefined || this.#closed) return;
    const { flushSnapshot: flushable } = this.receiver;
    const settle = () => {
      if (this.receiverError !== undefined || this.#closed) return;
      this.receiver.ack(this.clock.now, flushable);
      this.#answer();
    };
    const flushed = this.store.flush();
    if (flushed === undefined) settle();
    else void flushed.then(settle);
  }

  #answer(): void {
    const taken = this.receiver.drain(this.clock.now);
    if (taken.length === 0 || this.#closed) return;
    const bytes = Buffer.concat(taken);
    this.#answered.push(bytes);
    this.#note("answered", bytes.length);
    this.clock.after(this.#delay, () => this.#return(bytes));
  }

  #return(sent: Uint8Array): void {
    if (this.isCut || this.#closed) return;
    const { bytes, breaks } = this.#reach("answered", sent);
    for (const chunk of this.#chunker(bytes)) {
      if (this.isOver) return;
      this.#note("heard", chunk.length);
      this.#guardSender(() => this.sender.receive(chunk, this.clock.now));
      // The sender does not request writing while it decodes, so check here.
      this.#pump();
    }
    if (breaks && !this.isOver) this.break();
  }

  /** Bytes sent by each side. */
  get length(): { said: number; answered: number } {
    const sum = (parts: Uint8Array[]) => parts.reduce((total, { length }) => total + length, 0);
    return { said: sum(this.#said), answered: sum(this.#answered) };
  }

  /** Messages sent by the sender so far, with times. */
  get said(): Said[] {
    return this.#timed("said", this.#said);
  }

  /** Messages sent by the receiver so far, with times. */
  get answered(): Said[] {
    return this.#timed("answered", this.#answered);
  }

  /** Returns the end offsets of the messages of one side, preface included. */
  ends(way: Cut["way"]): number[] {
    return decode(way === "said" ? this.#said : this.#answered).ends.map((end) => end + 8);
  }

  /** Frames that the sender sent completely and knows to be settled, in the order of ending. */
  get receipted(): { source: number; sequence: number }[] {
    const total = this.#log.reduce(
      (sum, { way, bytes }) => sum + (way === "heard" ? bytes : 0),
      -8,
    );
    const { messages, ends } = decode(this.#answered);
    let settled = 0;
    for (const [index, message] of messages.entries()) {
      if (ends[index]! > total) break;
      if (message.type === type.RECEIPT) settled = (message as ReceiptMessage).frames;
    }
    const ended: { source: number; sequence: number }[] = [];
    const unfinished = new Map<number, number>();
    for (const message of decode(this.#said).messages) {
      const { source, flags } = message;
      if (message.type === type.FRAME) unfinished.set(source, (message as FrameMessage).sequence);
      const isPiece = message.type === type.FRAME || message.type === type.DATA;
      if (message.type === type.ABORT) ended.push({ source, sequence: 0 });
      else if (isPiece && flags % 2 === 0)
        ended.push({ source, sequence: unfinished.get(source)! });
    }
    return ended.slice(0, settled).filter(({ sequence }) => sequence > 0);
  }

  #timed(way: "said" | "answered", parts: Uint8Array[]): Said[] {
    const { messages, ends } = decode(parts);
    const timed: Said[] = [];
    let total = -8;
    for (const entry of this.#log) {
      if (entry.way !== way) continue;
      total += entry.bytes;
      while (timed.length < messages.length && ends[timed.length]! <= total) {
        timed.push({ at: entry.at, message: messages[timed.length]! });
      }
    }
    return timed;
  }

  /**
   * Decodes both directions with the oracle and checks them against the rules.
   *
   * @throws {Error} if a rule is broken
   */
  check(): WindowModel {
    const said = decode(this.#said);
    const answered = decode(this.#answered);
    for (const { messages } of [said, answered]) {
      const wrong = misplacement(messages);
      if (wrong !== undefined) throw new Error(`misplaced: ${JSON.stringify(wrong, bigints)}`);
    }
    const model = new WindowModel();
    const totals = { said: -8, heard: -8 };
    const seen = { said: 0, heard: 0 };
    for (const { way, bytes } of this.#log) {
      if (way === "answered") continue;
      totals[way] += bytes;
      const { messages, ends } = way === "said" ? said : answered;
      while (seen[way] < messages.length && ends[seen[way]]! <= totals[way]) {
        const message = messages[seen[way]++]!;
        if (way === "said") model.said(message);
        else model.heard(message);
      }
    }
    return model;
  }
}

function bigints(_key: string, value: unknown): unknown {
  return typeof value === "bigint" ? String(value) : value;
}

/** Decodes everything that one side sent. All bytes must be valid. */
function decode(parts: readonly Uint8Array[]): { messages: DecodedMessage[]; ends: number[] } {
  const bytes = Buffer.concat(parts);
  if (bytes.length === 0) return { messages: [], ends: [] };
  const start = bytes.subarray(0, 8).toString();
  if (start !== "FRAMES/1") throw new Error(`the preface is ${JSON.stringify(start)}`);
  const decoded = decodeAll(bytes.subarray(8), true);
  if (decoded.error !== undefined) throw new Error(`the oracle refuses it: ${decoded.error}`);
  if (decoded.consumed !== decoded.length) throw new Error("it ends within a message");
  return decoded;
}
