/**
 * Decodes FRAMES/1 (SPEC sections 2 to 5 and 12) from chunks split at any byte. A loop over named
 * states. Payload is passed on as views of the chunks. Only a header or control body that crosses a
 * chunk border is copied.
 */
import { parseObject } from "../common/json-object.ts";
import { crc32 } from "../common/checksum.ts";
import { compileCheaply } from "../common/compilation.ts";
import { type ErrorName, FramesError } from "../errors.ts";
import type { FrameDescription } from "../frame.ts";
import {
  type ControlMessage,
  decodeText,
  MessageFlag,
  hasSourceId,
  isControlType,
  isKnownType,
  parseControl,
  preface,
  Size,
  MessageType,
  typeName,
} from "./messages.ts";

/**
 * Callbacks of a decoder. An error thrown by a callback ends the decoding. A message without a
 * callback is a fatal error, because this end must not receive it.
 */
export interface MessageHandler {
  /** Called for a complete control message whose fields were checked. */
  onControl(message: ControlMessage): void;
  /** Called for FRAME. `more` says that the payload continues in DATA messages. */
  onFrame?(source: number, description: FrameDescription, more: boolean): void;
  /**
   * Called with payload of the unfinished frame of `source`. The bytes are a view, valid until the
   * call returns. Their CRC-32 is not checked yet.
   */
  onPayload?(source: number, bytes: Uint8Array): void;
  /** Called when the payload is complete and its CRC-32 is correct. */
  onFrameComplete?(source: number, crc: number): void;
  /** Called for RECEIPT. */
  onReceipt?(frames: number): void;
  /** Called for PROOF. */
  onProof?(bytes: Uint8Array): void;
}

/** Flags that need no feature. */
const baseFlags: number = MessageFlag.more | MessageFlag.optional;

const expectedPreface = new TextEncoder().encode(preface);

/** Buffer size kept between messages, in bytes. A larger buffer is released after its message. */
const maxRetainedBytes = 4096;

/** A frame with payload still to come. */
interface PartialFrame {
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

/** Decodes one direction of a connection. */
export class Decoder {
  #handler: MessageHandler;
  readonly #unfinished = new Map<number, PartialFrame>();
  /** Bytes of a part that crosses a chunk border. */
  #buffer: Uint8Array = new Uint8Array(64);
  #bufferLength = 0;
  #state: State = State.preface;
  /** Bytes that the state needs in one part. */
  #needed = preface.length;

  // The message being decoded.
  #type = 0;
  #flags = 0;
  #source = 0;
  #length = 0;
  #headerCrc = 0;
  /** CRC-32 of the header and the covered part of the body so far. */
  #crc = 0;
  #payloadLeft = 0;
  #payloadCrc = 0;
  #current: PartialFrame = { left: 0, crc: 0 };
  #frameFields: { sequence: number; captured: bigint; size: number; name: number } | undefined;

  #isPaused = false;
  /** Chunks received while paused, and the rest of the chunk in which decoding was paused. */
  #pausedChunks: Uint8Array[] = [];
  #pausedBytes = 0;
  /** Messages begun so far. */
  #messageCount = 0;
  /** Flags that a FRAME may have. */
  #frameFlags = baseFlags;

  constructor(handler: MessageHandler) {
    this.#handler = handler;
    compileCheaply(this.receive, this.#readPart, this.#readHeader, this.#checkMessage);
    compileCheaply(this.#readFrameFixed, this.#readFrameNames, this.#readPayload, this.#endPiece);
  }

  /** Replaces the handler; the next callback goes to the new one. */
  setHandler(handler: MessageHandler): void {
    this.#handler = handler;
  }

  /** Accepts the flag KEY from now on, because both ends know it. */
  acceptKeyFlag(): void {
    this.#frameFlags = baseFlags | MessageFlag.key;
  }

  /** Whether the bytes so far end between two messages. */
  get isBetweenMessages(): boolean {
    return this.#state === State.header && this.#bufferLength === 0;
  }

  /**
   * Number of the message that waits for more bytes; 0 if there is none. Payload does not count,
   * because it is passed on as it arrives. A number that stays the same for long means that the
   * rest is not coming.
   */
  get incompleteMessage(): number {
    if (this.#state === State.payload) return 0;
    if (this.#state !== State.header && this.#state !== State.preface) return this.#messageCount;
    return this.#bufferLength > 0 ? this.#messageCount + 1 : 0;
  }

  /** Bytes of memory used for buffered chunks and parts. */
  get bufferedBytes(): number {
    return this.#buffer.length + this.#pausedBytes;
  }

  /** Releases all buffers. Nothing can be decoded afterwards. */
  discard(): void {
    this.pause();
    for (const bytes of [this.#buffer, ...this.#pausedChunks]) releaseBuffer(bytes);
    this.#buffer = new Uint8Array(0);
    this.#pausedChunks = [];
    this.#pausedBytes = 0;
  }

  /** Id of the source whose payload is being received. */
  get payloadSource(): number | undefined {
    return this.#state === State.payload ? this.#source : undefined;
  }

  /**
   * Pauses decoding until `resume`. Chunks are buffered, so the caller should stop reading from the
   * peer.
   */
  pause(): void {
    this.#isPaused = true;
  }

  /**
   * Resumes decoding with the buffered chunks.
   *
   * @throws {FramesError} as `receive`
   */
  resume(): void {
    this.#isPaused = false;
    const chunks = this.#pausedChunks;
    this.#pausedChunks = [];
    this.#pausedBytes = 0;
    for (const chunk of chunks) this.receive(chunk);
  }

  /** Whether received bytes wait for `resume`. */
  get hasPausedBytes(): boolean {
    return this.#pausedBytes > 0;
  }

  /** Number of unfinished frames. */
  get unfinishedCount(): number {
    return this.#unfinished.size;
  }

  /**
   * Decodes the next bytes. The caller may reuse `chunk` afterwards.
   *
   * @throws {FramesError} `foreign`, `version`, `protocol` or `damaged`; the decoder cannot be used
   * afterwards
   */
  receive(chunk: Uint8Array): void {
    let at = 0;
    while (at < chunk.length) {
      // Copied, because the chunk is valid for this call only. `Buffer.slice` would not copy.
      if (this.#isPaused) return this.#keepPaused(chunk.subarray(at));
      if (this.#state === State.payload || this.#state === State.skip) {
        const bytes = chunk.subarray(at, at + this.#payloadLeft);
        at += bytes.length;
        this.#payloadLeft -= bytes.length;
        if (this.#state === State.skip) this.#skipBody(bytes);
        else this.#readPayload(bytes);
        continue;
      }
      const missingBytes = this.#needed - this.#bufferLength;
      if (this.#bufferLength === 0 && chunk.length - at >= missingBytes) {
        const part = chunk.subarray(at, at + missingBytes);
        at += missingBytes;
        this.#readPart(part);
        continue;
      }
      const bytes = chunk.subarray(at, at + missingBytes);
      this.#append(bytes);
      at += bytes.length;
      if (this.#state === State.preface) checkPreface(this.#buffer.subarray(0, this.#bufferLength));
      if (this.#bufferLength < this.#needed) return;
      const part = this.#buffer.subarray(0, this.#needed);
      this.#bufferLength = 0;
      // The buffer of a long message is not kept for the short ones after it.
      if (this.#buffer.length > maxRetainedBytes) this.#buffer = new Uint8Array(maxRetainedBytes);
      this.#readPart(part);
    }
  }

  #keepPaused(bytes: Uint8Array): void {
    this.#pausedChunks.push(new Uint8Array(bytes));
    this.#pausedBytes += bytes.length;
  }

  /**
   * Appends to the buffer. Its size is at most twice the bytes received, whatever length was
   * announced.
   */
  #append(bytes: Uint8Array): void {
    const needed = this.#bufferLength + bytes.length;
    if (this.#buffer.length < needed) {
      const larger = new Uint8Array(
        Math.min(Math.max(needed, 2 * this.#buffer.length), this.#needed),
      );
      larger.set(this.#buffer.subarray(0, this.#bufferLength));
      releaseBuffer(this.#buffer);
      this.#buffer = larger;
    }
    this.#buffer.set(bytes, this.#bufferLength);
    this.#bufferLength = needed;
  }

  #readPart(part: Uint8Array): void {
    switch (this.#state) {
      case State.preface:
        checkPreface(part);
        return this.#expectHeader();
      case State.header:
        return this.#readHeader(part);
      case State.control:
        this.#checkHeader(crc32(part, this.#crc));
        return this.#readControl(part);
      case State.frameFixed:
        return this.#readFrameFixed(part);
      case State.frameNames:
        return this.#readFrameNames(part);
      case State.dataFixed:
        return this.#readDataFixed(part);
      case State.binary:
        this.#checkHeader(crc32(part, this.#crc));
        return this.#readBinary(part);
    }
  }

  #expectHeader(): void {
    this.#state = State.header;
    this.#needed = Size.header;
  }

  #readHeader(part: Uint8Array): void {
    this.#messageCount++;
    this.#type = part[0]!;
    this.#flags = part[1]!;
    this.#source = (part[2]! << 8) | part[3]!;
    this.#length = readUint32(part, 4);
    this.#headerCrc = readUint32(part, 8);
    this.#crc = crc32(part.subarray(0, 8));
    this.#checkMessage();
    const length = this.#length;
    if (!isKnownType(this.#type)) {
      this.#payloadLeft = length;
      this.#state = State.skip;
      if (length === 0) this.#skipBody(part.subarray(0, 0));
    } else if (this.#type === MessageType.frame) {
      this.#state = State.frameFixed;
      this.#needed = Size.frame;
    } else if (this.#type === MessageType.data) {
      this.#state = State.dataFixed;
      this.#needed = Size.data;
    } else if (isControlType(this.#type)) {
      this.#state = State.control;
      this.#needed = length;
    } else {
      this.#state = State.binary;
      this.#needed = length;
    }
  }

  /**
   * Checks everything that the header decides, so that a wrong message is rejected before its body
   * arrives.
   */
  #checkMessage(): void {
    const type = this.#type;
    const length = this.#length;
    const flags = this.#flags;
    if (length > Size.body) this.#fail(`its body of ${length} bytes is over ${Size.body}`);
    const knownFlags = type === MessageType.frame ? this.#frameFlags : baseFlags;
    if ((flags & ~knownFlags) !== 0) this.#fail(`its flags are ${flags}`);
    const pieces = type === MessageType.frame || type === MessageType.data;
    if ((flags & MessageFlag.more) !== 0 && !pieces) this.#fail("it cannot have MORE");
    if (!isKnownType(type)) {
      if ((flags & MessageFlag.optional) === 0) this.#fail("its type is not known");
      return;
    }
    if (hasSourceId(type) !== (this.#source !== 0)) this.#fail(`its source id is ${this.#source}`);
    const { onFrame: frame, onReceipt: receipt, onProof: proof } = this.#handler;
    const handlerMethod = pieces ? frame : type === MessageType.receipt ? receipt : proof;
    if (!isControlType(type) && handlerMethod === undefined) this.#fail("it is not for this side");
    if (isControlType(type) && (length > Size.json || length < 2)) {
      this.#fail(`its JSON is ${length} bytes long`);
    }
    if (type === MessageType.receipt && length !== Size.receipt)
      this.#fail(`it is ${length} bytes long`);
    if (type === MessageType.proof && length !== Size.proof)
      this.#fail(`it is ${length} bytes long`);
    if (type === MessageType.frame) {
      if (length <= Size.frame) this.#fail(`it is ${length} bytes long`);
      if (this.#unfinished.has(this.#source)) {
        this.#fail("the frame before it in this source is unfinished");
      }
    }
    if (type === MessageType.data) {
      if (length <= Size.data) this.#fail("it has no payload");
      const unfinished = this.#unfinished.get(this.#source);
      if (unfinished === undefined) this.#fail("no frame of this source is unfinished");
      else this.#checkPiece(unfinished, length - Size.data);
    }
  }

  /** Checks that the payloads add up to the frame's size and that MORE agrees with it. */
  #checkPiece(unfinished: PartialFrame, length: number): void {
    if (length > unfinished.left) this.#fail("the frame is longer than its size");
    const more = (this.#flags & MessageFlag.more) !== 0;
    if (more && length === unfinished.left) this.#fail("it has MORE, but the frame is complete");
    if (!more && length < unfinished.left)
      this.#fail("it lacks MORE, but the frame is not complete");
  }

  #readControl(part: Uint8Array): void {
    this.#expectHeader();
    const message = parseControl(this.#type as ControlMessage["type"], this.#source, part);
    if (message.type === MessageType.abort && !this.#unfinished.delete(this.#source)) {
      this.#fail("no frame of this source is unfinished");
    }
    this.#handler.onControl(message);
  }

  #readBinary(part: Uint8Array): void {
    this.#expectHeader();
    if (this.#type === MessageType.proof) return this.#handler.onProof!(new Uint8Array(part));
    const frames = readUint64(part, 0);
    if (!Number.isSafeInteger(frames)) this.#fail("its number is beyond 2^53");
    this.#handler.onReceipt!(frames);
  }

  #readFrameFixed(part: Uint8Array): void {
    this.#crc = crc32(part, this.#crc);
    const sequence = readUint64(part, 0);
    const captured = new DataView(part.buffer, part.byteOffset).getBigInt64(8);
    const size = readUint64(part, 16);
    this.#payloadCrc = readUint32(part, 24);
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
    this.#frameFields = { sequence, captured, size, name };
    this.#state = State.frameNames;
    this.#needed = name + metadata;
  }

  #readFrameNames(part: Uint8Array): void {
    this.#checkHeader(crc32(part, this.#crc));
    const { sequence, captured, size, name: length } = this.#frameFields!;
    const name = decodeText(part.subarray(0, length), "the name of a frame");
    let metadata = "";
    if (part.length > length) {
      metadata = decodeText(part.subarray(length), "the metadata of a frame");
      checkMetadata(metadata);
    }
    const description = { sequence, captured, size, name, metadata };
    this.#handler.onFrame!(this.#source, description, (this.#flags & MessageFlag.more) !== 0);
    this.#beginPayload();
  }

  #readDataFixed(part: Uint8Array): void {
    this.#checkHeader(crc32(part, this.#crc));
    this.#payloadCrc = readUint32(part, 0);
    this.#payloadLeft = this.#length - Size.data;
    this.#current = this.#unfinished.get(this.#source)!;
    this.#beginPayload();
  }

  #beginPayload(): void {
    this.#state = State.payload;
    if (this.#payloadLeft === 0) this.#endPiece();
  }

  #readPayload(bytes: Uint8Array): void {
    this.#current.crc = crc32(bytes, this.#current.crc);
    this.#current.left -= bytes.length;
    this.#handler.onPayload!(this.#source, bytes);
    if (this.#payloadLeft === 0) this.#endPiece();
  }

  #endPiece(): void {
    const current = this.#current;
    if (current.crc !== this.#payloadCrc) {
      throw this.#error("damaged", "the CRC-32 of its payload does not match");
    }
    this.#expectHeader();
    if ((this.#flags & MessageFlag.more) !== 0) {
      this.#unfinished.set(this.#source, current);
      return;
    }
    this.#unfinished.delete(this.#source);
    this.#handler.onFrameComplete!(this.#source, current.crc);
  }

  #skipBody(bytes: Uint8Array): void {
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
  if (parseObject(metadata) !== undefined) return;
  throw new FramesError("protocol", "Cannot accept FRAME: its metadata is not a JSON object");
}

/**
 * Checks the preface byte by byte, so that a wrong protocol is detected before 8 bytes have
 * arrived.
 *
 * @throws {FramesError} `foreign` or `version`
 */
function checkPreface(bytes: Uint8Array): void {
  for (let index = 0; index < bytes.length; index++) {
    if (bytes[index] === expectedPreface[index]) continue;
    const digit = bytes[index]!;
    if (index === preface.length - 1 && digit >= 0x30 && digit <= 0x39) {
      throw new FramesError(
        "version",
        `Cannot talk to the peer: it speaks FRAMES/${digit - 0x30}, this is ${preface}`,
      );
    }
    const received = JSON.stringify(Buffer.from(bytes.subarray(0, 24)).toString("latin1"));
    throw new FramesError("foreign", `expected ${preface}, received ${received}`);
  }
}

/** Frees memory at once. The garbage collector may be late when thousands of peers stop sending. */
function releaseBuffer(bytes: Uint8Array): void {
  (bytes.buffer as ArrayBuffer).transfer(0);
}

/** Reads a big-endian unsigned 32-bit integer. */
function readUint32(bytes: Uint8Array, at: number): number {
  return (
    bytes[at]! * 0x100_0000 + ((bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!)
  );
}

/** Reads a big-endian unsigned 64-bit integer. Values above 2^53 are inexact. */
function readUint64(bytes: Uint8Array, at: number): number {
  return readUint32(bytes, at) * 0x1_0000_0000 + readUint32(bytes, at + 4);
}
