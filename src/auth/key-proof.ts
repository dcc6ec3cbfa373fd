/**
 * The proof of a key (SPEC section 10), as two machines without I/O: each end shows that it holds the key,
 * bound to this TLS channel, to its role, and to every byte of the conversation before.
 */
import { createHmac, timingSafeEqual } from "node:crypto";
import { FramesError } from "../errors.ts";
import { preface, Size, MessageType } from "../wire/messages.ts";
import { Key, keyLengthBytes } from "./key.ts";

/** The label and the length of what TLS exports to bind a proof to its channel (RFC 9266). */
export const channelBinding = { label: "EXPORTER-Channel-Binding", bytes: 32 } as const;

/** Bytes that may come before the proof: a preface and a HELLO, of somebody whom nobody knows yet. */
const maxBytesBeforeProof = 16_384;

/** HMAC-SHA-256 over who proves, the channel, and what was said so far. */
function computeProof(
  key: Key,
  role: "client" | "server",
  exporter: Uint8Array,
  ...messages: readonly Uint8Array[]
): Uint8Array {
  const hmac = createHmac("sha256", key.bytes).update(`FRAMES/1 ${role}`).update(exporter);
  for (const bytes of messages) hmac.update(bytes);
  return new Uint8Array(hmac.digest());
}

/** What a peer said up to its PROOF, byte for byte. */
export class Transcript {
  /** What came, and room that doubles: a peer may say it a byte at a time. */
  #buffer = new Uint8Array(512);
  #length = 0;
  #isOver = false;

  /**
   * Takes what came, until PROOF was.
   *
   * @throws {FramesError} `limit` if too much comes before it
   */
  add(chunk: Uint8Array): void {
    if (this.#isOver) return;
    const maxLength = maxBytesBeforeProof + Size.header + Size.proof;
    const bytes = chunk.subarray(0, maxLength - this.#length);
    const needed = this.#length + bytes.length;
    if (needed > this.#buffer.length) {
      const larger = new Uint8Array(Math.max(needed, 2 * this.#buffer.length));
      larger.set(this.#buffer);
      this.#buffer = larger;
    }
    this.#buffer.set(bytes, this.#length);
    this.#length = needed;
    if (needed === maxLength && this.#proofOffset() === undefined) {
      throw new FramesError(
        "limit",
        `Cannot accept more than ${maxBytesBeforeProof} bytes before PROOF`,
      );
    }
  }

  /** Bytes that it takes. */
  get bufferedBytes(): number {
    return this.#buffer.length;
  }

  /** Where the message PROOF begins, if the messages before it are whole. */
  #proofOffset(): number | undefined {
    const view = new DataView(this.#buffer.buffer);
    let offset = preface.length;
    while (offset + Size.header <= this.#length && this.#buffer[offset] !== MessageType.proof) {
      offset += Size.header + view.getUint32(offset + 4);
    }
    return offset + Size.header <= this.#length ? offset : undefined;
  }

  /** Ends it: the bytes before PROOF, and those with it. To be asked once, when PROOF has come whole. */
  finish(): { beforeProof: Uint8Array; throughProof: Uint8Array } {
    const offset = this.#proofOffset();
    if (offset === undefined)
      throw new FramesError("internal", "There is no PROOF in the transcript");
    const throughProof = this.#buffer.subarray(0, offset + Size.header + Size.proof);
    this.#isOver = true;
    this.#buffer = new Uint8Array(0);
    this.#length = 0;
    return { beforeProof: throughProof.subarray(0, offset), throughProof };
  }
}

/** The client's side. */
export class ClientProof {
  readonly #key: Key;
  readonly #received = new Transcript();
  #exporter: Uint8Array | undefined;
  #sent: Uint8Array = new Uint8Array(0);

  constructor(key: Key) {
    this.#key = key;
  }

  /** To be sent in HELLO. */
  get keyId(): string {
    return this.#key.id;
  }

  /** Whether the server has proved that it holds the key. */
  isDone = false;

  /**
   * The body of PROOF.
   *
   * @param exporter of the TLS channel
   * @param sent what was said before it: preface and HELLO
   */
  create(exporter: Uint8Array, sent: Uint8Array): Uint8Array {
    this.#exporter = exporter;
    this.#sent = sent;
    return computeProof(this.#key, "client", exporter, sent);
  }

  /** The message PROOF is out, in these bytes. */
  onSent(message: Uint8Array): void {
    this.#sent = Buffer.concat([this.#sent, message]);
  }

  /** Takes what the server says. */
  onReceived(chunk: Uint8Array): void {
    this.#received.add(chunk);
  }

  /**
   * The server's PROOF came whole.
   *
   * @throws {FramesError} `impostor` if it is not the right one
   */
  verify(proof: Uint8Array): void {
    const { beforeProof } = this.#received.finish();
    const exporter = this.#exporter;
    const isValid =
      exporter !== undefined &&
      timingSafeEqual(proof, computeProof(this.#key, "server", exporter, this.#sent, beforeProof));
    if (!isValid) throw new FramesError("impostor");
    this.isDone = true;
  }
}

// An unknown id is held against this, so that it takes as long as a wrong proof; it lets nobody in.
const dummyKey = new Key(new Uint8Array(keyLengthBytes));

/** The server's side. */
export class ServerProof {
  readonly #exporter: Uint8Array;
  readonly #received = new Transcript();

  /** @param exporter of the TLS channel */
  constructor(exporter: Uint8Array) {
    this.#exporter = exporter;
  }

  /** Bytes that are held of what the client said. */
  get bufferedBytes(): number {
    return this.#received.bufferedBytes;
  }

  /** Takes what the client says. */
  onReceived(chunk: Uint8Array): void {
    this.#received.add(chunk);
  }

  /**
   * The client's PROOF came whole: the body of the server's own.
   *
   * @param sent what the server has said before it: its preface
   * @throws {FramesError} `not-let-in` if the key is not known or the proof is wrong
   */
  answer(key: Key | undefined, proof: Uint8Array, sent: Uint8Array): Uint8Array {
    const { beforeProof, throughProof } = this.#received.finish();
    const expected = computeProof(key ?? dummyKey, "client", this.#exporter, beforeProof);
    if (!timingSafeEqual(proof, expected) || key === undefined) throw new FramesError("not-let-in");
    return computeProof(key, "server", this.#exporter, throughProof, sent);
  }
}
