/**
 * Bytes to messages (SPEC sections 2 to 5 and 12), whatever way the bytes were cut. A loop over
 * named states; payload is passed on as views of the chunks it came in, and only a header or a
 * control body that crosses the border of two chunks is copied.
 */
import { crc32 } from "node:zlib";
import { type ErrorName, FramesError } from "../errors.ts";
import type { FrameDescription } from "../frame.ts";
import { giveBack, uint32, uint64 } from "./bytes.ts";
import {
  type ControlMessage,
  decodeText,
  Flag,
  hasSource,
  isControl,
  isKnown,
  parseControl,
  preface,
  Size,
  Type,
  typeName,
} from "./messages.ts";
import { checkPreface } from "./preface.ts";

/**
 * What a decoder tells. Whatever a method throws ends the decoding; a message whose method is not
 * there is not for this end, and fatal.
 */
export interface MessageHandler {
  /** A control message, complete and checked. */
  control(message: ControlMessage): void;
  /** FRAME: a frame begins; its payload follows, with `more` in further messages too. */
  frame?(source: number, description: FrameDescription, more: boolean): void;
  /**
   * Payload of the unfinished frame of `source`: a view of the chunk, good until this returns. Its CRC-32
   * is not yet checked.
   */
  payload?(source: number, bytes: Uint8Array): void;
  /** All payload of the frame came, and its CRC-32 is right. */
  complete?(source: number, crc: number): void;
  /** RECEIPT. */
  receipt?(frames: number): void;
  /** PROOF. */
  proof?(bytes: Uint8Array): void;
}

/** Bytes that a decoder keeps at hand for messages that cross the border of two chunks. */
const mostKept = 4096;

/** A frame of which more is to come. */
interface Unfinished {
  left: number;
  crc: number;
}

const State = {
  preface: 0,
  header: 1,
  control: 2,
  frameFixed: 3,
  frameNames: 4,
  dataFixed: 5,
  payload: 6,
  binary: 7,
  skip: 8,
} as const;
type State = (typeof State)[keyof typeof State];

/** Decodes one direction of a conversation. */
export class Decoder {
  #handler: MessageHandler;
  readonly #unfinished = new Map<number, Unfinished>();
  /** What is held of a part that crosses a chunk border. */
  #held: Uint8Array = new Uint8Array(64);
  #heldLength = 0;
  #state: State = State.preface;
  /** Bytes that the state needs in one piece. */
  #need = preface.length;

  // The message being read.
  #type = 0;
  #flags = 0;
  #source = 0;
  #length = 0;
  #headerCrc = 0;
  /** CRC-32 over header and covered body so far. */
  #crc = 0;
  #payloadLeft = 0;
  #payloadCrc = 0;
  #current: Unfinished = { left: 0, crc: 0 };
  #fixed: { sequence: number; captured: bigint; size: number; name: number } | undefined;

  #paused = false;
  /** What came while it was paused, and what was left of the chunk before. */
  #waiting: Uint8Array[] = [];
  #waitingBytes = 0;
  /** Messages begun. */
  #begun = 0;

  constructor(handler: MessageHandler) {
    this.#handler = handler;
  }

  /** From now on another one is told, of the messages that come next. */
  handOver(handler: MessageHandler): void {
    this.#handler = handler;
  }

  /** Whether the bytes so far end between two messages. */
  get atBorder(): boolean {
    return this.#state === State.header && this.#heldLength === 0;
  }

  /**
   * Stands for the message of which more must come before anything can be done with it, payload apart;
   * 0 where there is none. Whoever sees the same number for long waits for bytes that never come.
   */
  get incomplete(): number {
    if (this.#state === State.payload) return 0;
    if (this.#state !== State.header && this.#state !== State.preface) return this.#begun;
    return this.#heldLength > 0 ? this.#begun + 1 : 0;
  }

  /** Bytes that are held of what came. */
  get held(): number {
    return this.#held.length + this.#waitingBytes;
  }

  /** Nothing more will be decoded: what is held is of no use. */
  discard(): void {
    this.pause();
    for (const bytes of [this.#held, ...this.#waiting]) giveBack(bytes);
    this.#held = new Uint8Array(0);
    this.#waiting = [];
    this.#waitingBytes = 0;
  }

  /** Id of the source whose payload is being read. */
  get payloadOf(): number | undefined {
    return this.#state === State.payload ? this.#source : undefined;
  }

  /** Decodes nothing more until `resume`: what comes is kept, so the peer must be held back. */
  pause(): void {
    this.#paused = true;
  }

  /**
   * Decodes on.
   *
   * @throws {FramesError} as `receive`
   */
  resume(): void {
    this.#paused = false;
    const waiting = this.#waiting;
    this.#waiting = [];
    this.#waitingBytes = 0;
    for (const chunk of waiting) this.receive(chunk);
  }

  /** How many frames are unfinished. */
  get unfinished(): number {
    return this.#unfinished.size;
  }

  /**
   * Takes the next bytes; nothing of `chunk` is kept.
   *
   * @throws {FramesError} `foreign`, `version`, `protocol` or `damaged`; the decoder is then of no more use
   */
  receive(chunk: Uint8Array): void {
    let at = 0;
    while (at < chunk.length) {
      // A copy: the chunk is good for this call only. (Its `slice` would be none, if it is a Buffer.)
      if (this.#paused) return this.#wait(chunk.subarray(at));
      if (this.#state === State.payload || this.#state === State.skip) {
        const bytes = chunk.subarray(at, at + this.#payloadLeft);
        at += bytes.length;
        this.#payloadLeft -= bytes.length;
        if (this.#state === State.skip) this.#skip(bytes);
        else this.#payload(bytes);
        continue;
      }
      const missing = this.#need - this.#heldLength;
      if (this.#heldLength === 0 && chunk.length - at >= missing) {
        const part = chunk.subarray(at, at + missing);
        at += missing;
        this.#part(part);
        continue;
      }
      const bytes = chunk.subarray(at, at + missing);
      this.#hold(bytes);
      at += bytes.length;
      if (this.#state === State.preface) checkPreface(this.#held.subarray(0, this.#heldLength));
      if (this.#heldLength < this.#need) return;
      const part = this.#held.subarray(0, this.#need);
      this.#heldLength = 0;
      // What a long message took is not kept for the short ones after it.
      if (this.#held.length > mostKept) this.#held = new Uint8Array(mostKept);
      this.#part(part);
    }
  }

  #wait(bytes: Uint8Array): void {
    this.#waiting.push(new Uint8Array(bytes));
    this.#waitingBytes += bytes.length;
  }

  /** Takes no more memory than twice what came, whatever length was announced. */
  #hold(bytes: Uint8Array): void {
    const needed = this.#heldLength + bytes.length;
    if (this.#held.length < needed) {
      const larger = new Uint8Array(Math.min(Math.max(needed, 2 * this.#held.length), this.#need));
      larger.set(this.#held.subarray(0, this.#heldLength));
      giveBack(this.#held);
      this.#held = larger;
    }
    this.#held.set(bytes, this.#heldLength);
    this.#heldLength = needed;
  }

  #part(part: Uint8Array): void {
    switch (this.#state) {
      case State.preface:
        checkPreface(part);
        return this.#expectHeader();
      case State.header:
        return this.#header(part);
      case State.control:
        this.#checkHeader(crc32(part, this.#crc));
        return this.#control(part);
      case State.frameFixed:
        return this.#frameFixed(part);
      case State.frameNames:
        return this.#frameNames(part);
      case State.dataFixed:
        return this.#dataFixed(part);
      case State.binary:
        this.#checkHeader(crc32(part, this.#crc));
        return this.#binary(part);
    }
  }

  #expectHeader(): void {
    this.#state = State.header;
    this.#need = Size.header;
  }

  #header(part: Uint8Array): void {
    this.#begun++;
    this.#type = part[0]!;
    this.#flags = part[1]!;
    this.#source = (part[2]! << 8) | part[3]!;
    this.#length = uint32(part, 4);
    this.#headerCrc = uint32(part, 8);
    this.#crc = crc32(part.subarray(0, 8));
    this.#checkMessage();
    const length = this.#length;
    if (!isKnown(this.#type)) {
      this.#payloadLeft = length;
      this.#state = State.skip;
      if (length === 0) this.#skip(part.subarray(0, 0));
    } else if (this.#type === Type.frame) {
      this.#state = State.frameFixed;
      this.#need = Size.frame;
    } else if (this.#type === Type.data) {
      this.#state = State.dataFixed;
      this.#need = Size.data;
    } else if (isControl(this.#type)) {
      this.#state = State.control;
      this.#need = length;
    } else {
      this.#state = State.binary;
      this.#need = length;
    }
  }

  /** What the header alone decides: nothing of a wrong message is waited for. */
  #checkMessage(): void {
    const type = this.#type;
    const length = this.#length;
    const flags = this.#flags;
    if (length > Size.body) this.#fail(`its body of ${length} bytes is over ${Size.body}`);
    if ((flags & ~(Flag.more | Flag.optional)) !== 0) this.#fail(`its flags are ${flags}`);
    const pieces = type === Type.frame || type === Type.data;
    if ((flags & Flag.more) !== 0 && !pieces) this.#fail("it cannot have MORE");
    if (!isKnown(type)) {
      if ((flags & Flag.optional) === 0) this.#fail("its type is not known");
      return;
    }
    if (hasSource(type) !== (this.#source !== 0)) this.#fail(`its source id is ${this.#source}`);
    const { frame, receipt, proof } = this.#handler;
    const handled = pieces ? frame : type === Type.receipt ? receipt : proof;
    if (!isControl(type) && handled === undefined) this.#fail("it is not for this end");
    if (isControl(type) && (length > Size.json || length < 2)) {
      this.#fail(`its JSON is ${length} bytes long`);
    }
    if (type === Type.receipt && length !== Size.receipt) this.#fail(`it is ${length} bytes long`);
    if (type === Type.proof && length !== Size.proof) this.#fail(`it is ${length} bytes long`);
    if (type === Type.frame) {
      if (length <= Size.frame) this.#fail(`it is ${length} bytes long`);
      if (this.#unfinished.has(this.#source)) {
        this.#fail("the frame before it in this source is unfinished");
      }
    }
    if (type === Type.data) {
      if (length <= Size.data) this.#fail("it has no payload");
      const unfinished = this.#unfinished.get(this.#source);
      if (unfinished === undefined) this.#fail("no frame of this source is unfinished");
      else this.#checkPiece(unfinished, length - Size.data);
    }
  }

  /** The payloads of a frame must add up to its size, and MORE must say so. */
  #checkPiece(unfinished: Unfinished, length: number): void {
    if (length > unfinished.left) this.#fail("the frame is longer than its size");
    const more = (this.#flags & Flag.more) !== 0;
    if (more && length === unfinished.left) this.#fail("it has MORE, but the frame is complete");
    if (!more && length < unfinished.left)
      this.#fail("it lacks MORE, but the frame is not complete");
  }

  #control(part: Uint8Array): void {
    this.#expectHeader();
    const message = parseControl(this.#type as ControlMessage["type"], this.#source, part);
    if (message.type === Type.abort && !this.#unfinished.delete(this.#source)) {
      this.#fail("no frame of this source is unfinished");
    }
    this.#handler.control(message);
  }

  #binary(part: Uint8Array): void {
    this.#expectHeader();
    if (this.#type === Type.proof) return this.#handler.proof!(new Uint8Array(part));
    const frames = uint64(part, 0);
    if (!Number.isSafeInteger(frames)) this.#fail("its number is beyond 2^53");
    this.#handler.receipt!(frames);
  }

  #frameFixed(part: Uint8Array): void {
    this.#crc = crc32(part, this.#crc);
    const sequence = uint64(part, 0);
    const captured = new DataView(part.buffer, part.byteOffset).getBigInt64(8);
    const size = uint64(part, 16);
    this.#payloadCrc = uint32(part, 24);
    const name = (part[28]! << 8) | part[29]!;
    const metadata = (part[30]! << 8) | part[31]!;
    if (sequence < 1 || !Number.isSafeInteger(sequence)) this.#fail("its number is out of range");
    if (!Number.isSafeInteger(size)) this.#fail("its size is out of range");
    if (name < 1 || name > Size.name) this.#fail(`its name is ${name} bytes long`);
    if (metadata > Size.metadata) this.#fail(`its metadata is ${metadata} bytes long`);
    const payload = this.#length - Size.frame - name - metadata;
    if (payload < 0) this.#fail("its name and metadata go beyond its body");
    this.#current = { left: size, crc: 0 };
    this.#checkPiece(this.#current, payload);
    this.#payloadLeft = payload;
    this.#fixed = { sequence, captured, size, name };
    this.#state = State.frameNames;
    this.#need = name + metadata;
  }

  #frameNames(part: Uint8Array): void {
    this.#checkHeader(crc32(part, this.#crc));
    const { sequence, captured, size, name: length } = this.#fixed!;
    const name = decodeText(part.subarray(0, length), "the name of a frame");
    let metadata = "";
    if (part.length > length) {
      metadata = decodeText(part.subarray(length), "the metadata of a frame");
      checkMetadata(metadata);
    }
    const description = { sequence, captured, size, name, metadata };
    this.#handler.frame!(this.#source, description, (this.#flags & Flag.more) !== 0);
    this.#beginPayload();
  }

  #dataFixed(part: Uint8Array): void {
    this.#checkHeader(crc32(part, this.#crc));
    this.#payloadCrc = uint32(part, 0);
    this.#payloadLeft = this.#length - Size.data;
    this.#current = this.#unfinished.get(this.#source)!;
    this.#beginPayload();
  }

  #beginPayload(): void {
    this.#state = State.payload;
    if (this.#payloadLeft === 0) this.#endPiece();
  }

  #payload(bytes: Uint8Array): void {
    this.#current.crc = crc32(bytes, this.#current.crc);
    this.#current.left -= bytes.length;
    this.#handler.payload!(this.#source, bytes);
    if (this.#payloadLeft === 0) this.#endPiece();
  }

  #endPiece(): void {
    const current = this.#current;
    if (current.crc !== this.#payloadCrc) {
      throw this.#error("damaged", "the CRC-32 of its payload does not match");
    }
    this.#expectHeader();
    if ((this.#flags & Flag.more) !== 0) {
      this.#unfinished.set(this.#source, current);
      return;
    }
    this.#unfinished.delete(this.#source);
    this.#handler.complete!(this.#source, current.crc);
  }

  #skip(bytes: Uint8Array): void {
    if (bytes.length > 0) this.#crc = crc32(bytes, this.#crc);
    if (this.#payloadLeft > 0) return;
    this.#checkHeader(this.#crc);
    this.#expectHeader();
  }

  #checkHeader(crc: number): void {
    if (crc !== this.#headerCrc) {
      throw this.#error("damaged", "the CRC-32 of its header does not match");
    }
  }

  #fail(what: string): never {
    throw this.#error("protocol", what);
  }

  #error(code: ErrorName, what: string): FramesError {
    return new FramesError(code, `Cannot accept ${typeName(this.#type)}: ${what}`);
  }
}

function checkMetadata(metadata: string): void {
  let value: unknown;
  try {
    value = JSON.parse(metadata);
  } catch {
    value = undefined;
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return;
  throw new FramesError("protocol", "Cannot accept FRAME: its metadata is not a JSON object");
}
