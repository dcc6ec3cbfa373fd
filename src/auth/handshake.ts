/**
 * The proof of a key (SPEC section 10), as two machines without I/O: each end shows that it holds the key,
 * bound to this TLS channel, to its role, and to every byte of the conversation before.
 */
import { createHmac, timingSafeEqual } from "node:crypto";
import { FramesError } from "../errors.ts";
import { preface, Size, Type } from "../wire/messages.ts";
import { Key, keyLength } from "./key.ts";

/** The label and the length of what TLS exports to bind a proof to its channel (RFC 9266). */
export const channelBinding = { label: "EXPORTER-Channel-Binding", bytes: 32 } as const;

/** Bytes that may come before the proof: a preface and a HELLO, of somebody whom nobody knows yet. */
const mostBefore = 16_384;

/** HMAC-SHA-256 over who proves, the channel, and what was said so far. */
function prove(
  key: Key,
  role: "client" | "server",
  exporter: Uint8Array,
  ...said: readonly Uint8Array[]
): Uint8Array {
  const hmac = createHmac("sha256", key.bytes).update(`FRAMES/1 ${role}`).update(exporter);
  for (const bytes of said) hmac.update(bytes);
  return new Uint8Array(hmac.digest());
}

/** What a peer said up to its PROOF, byte for byte. */
export class Transcript {
  /** What came, and room that doubles: a peer may say it a byte at a time. */
  #room = new Uint8Array(512);
  #length = 0;
  #isOver = false;

  /**
   * Takes what came, until PROOF was.
   *
   * @throws {FramesError} `limit` if too much comes before it
   */
  add(chunk: Uint8Array): void {
    if (this.#isOver) return;
    const most = mostBefore + Size.header + Size.proof;
    const bytes = chunk.subarray(0, most - this.#length);
    const needed = this.#length + bytes.length;
    if (needed > this.#room.length) {
      const larger = new Uint8Array(Math.max(needed, 2 * this.#room.length));
      larger.set(this.#room);
      this.#room = larger;
    }
    this.#room.set(bytes, this.#length);
    this.#length = needed;
    if (needed === most && this.#proofAt() === undefined) {
      throw new FramesError("limit", `Cannot accept more than ${mostBefore} bytes before PROOF`);
    }
  }

  /** Bytes that it takes. */
  get held(): number {
    return this.#room.length;
  }

  /** Where the message PROOF begins, if the messages before it are whole. */
  #proofAt(): number | undefined {
    const view = new DataView(this.#room.buffer);
    let at = preface.length;
    while (at + Size.header <= this.#length && this.#room[at] !== Type.proof) {
      at += Size.header + view.getUint32(at + 4);
    }
    return at + Size.header <= this.#length ? at : undefined;
  }

  /** Ends it: the bytes before PROOF, and those with it. To be asked once, when PROOF has come whole. */
  take(): { before: Uint8Array; whole: Uint8Array } {
    const at = this.#proofAt();
    if (at === undefined) throw new FramesError("internal", "There is no PROOF in the transcript");
    const whole = this.#room.subarray(0, at + Size.header + Size.proof);
    this.#isOver = true;
    this.#room = new Uint8Array(0);
    this.#length = 0;
    return { before: whole.subarray(0, at), whole };
  }
}

/** The client's side. */
export class ClientProof {
  readonly #key: Key;
  readonly #heard = new Transcript();
  #exporter: Uint8Array | undefined;
  #said: Uint8Array = new Uint8Array(0);

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
   * @param said what was said before it: preface and HELLO
   */
  make(exporter: Uint8Array, said: Uint8Array): Uint8Array {
    this.#exporter = exporter;
    this.#said = said;
    return prove(this.#key, "client", exporter, said);
  }

  /** The message PROOF is out, in these bytes. */
  said(message: Uint8Array): void {
    this.#said = Buffer.concat([this.#said, message]);
  }

  /** Takes what the server says. */
  heard(chunk: Uint8Array): void {
    this.#heard.add(chunk);
  }

  /**
   * The server's PROOF came whole.
   *
   * @throws {FramesError} `impostor` if it is not the right one
   */
  check(proof: Uint8Array): void {
    const { before } = this.#heard.take();
    const exporter = this.#exporter;
    const isRight =
      exporter !== undefined &&
      timingSafeEqual(proof, prove(this.#key, "server", exporter, this.#said, before));
    if (!isRight) throw new FramesError("impostor");
    this.isDone = true;
  }
}

// An unknown id is held against this, so that it takes as long as a wrong proof; it lets nobody in.
const nobodysKey = new Key(new Uint8Array(keyLength));

/** The server's side. */
export class ServerProof {
  readonly #exporter: Uint8Array;
  readonly #heard = new Transcript();

  /** @param exporter of the TLS channel */
  constructor(exporter: Uint8Array) {
    this.#exporter = exporter;
  }

  /** Bytes that are held of what the client said. */
  get held(): number {
    return this.#heard.held;
  }

  /** Takes what the client says. */
  heard(chunk: Uint8Array): void {
    this.#heard.add(chunk);
  }

  /**
   * The client's PROOF came whole: the body of the server's own.
   *
   * @param said what the server has said before it: its preface
   * @throws {FramesError} `not-let-in` if the key is not known or the proof is wrong
   */
  answer(key: Key | undefined, proof: Uint8Array, said: Uint8Array): Uint8Array {
    const { before, whole } = this.#heard.take();
    const expected = prove(key ?? nobodysKey, "client", this.#exporter, before);
    if (!timingSafeEqual(proof, expected) || key === undefined) throw new FramesError("not-let-in");
    return prove(key, "server", this.#exporter, whole, said);
  }
}
