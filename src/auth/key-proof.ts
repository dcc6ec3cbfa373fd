/**
 * Proof of a key by client and server (SPEC section 10), without I/O. A proof is bound to the TLS
 * channel, the role, and every byte exchanged before it.
 */
import { FramesError } from "../errors.ts";
import { preface, Size, MessageType } from "../wire/messages.ts";
import { Key, keyLengthBytes } from "./key.ts";

/** Label and length of the keying material exported from TLS (RFC 9266). */
export const channelBinding = { label: "EXPORTER-Channel-Binding", bytes: 32 } as const;

/**
 * Bytes accepted before PROOF, enough for preface and HELLO. The peer is not authenticated yet, so
 * they are limited.
 */
const maxBytesBeforeProof = 16_384;

/** Returns HMAC-SHA-256 over the role, the TLS exporter and the messages so far. */
function computeProof(
  key: Key,
  role: "client" | "server",
  exporter: Uint8Array,
  ...messages: readonly Uint8Array[]
): Uint8Array {
  const hmac = new Bun.CryptoHasher("sha256", key.bytes);
  hmac.update(`FRAMES/1 ${role}`).update(exporter);
  for (const bytes of messages) hmac.update(bytes);
  return new Uint8Array(hmac.digest());
}

/** Records the bytes of a peer up to the end of its PROOF. */
export class Transcript {
  /** Received bytes. The capacity doubles, because a peer may send single bytes. */
  #buffer = new Uint8Array(512);
  #length = 0;
  #isOver = false;

  /**
   * Records bytes until PROOF is complete.
   *
   * @throws {FramesError} `limit` if too many bytes arrive before PROOF
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

  /** Bytes of memory used. */
  get bufferedBytes(): number {
    return this.#buffer.length;
  }

  /** Returns the offset of PROOF, or `undefined` if its header has not arrived. */
  #proofOffset(): number | undefined {
    const view = new DataView(this.#buffer.buffer);
    let offset = preface.length;
    while (offset + Size.header <= this.#length && this.#buffer[offset] !== MessageType.proof) {
      offset += Size.header + view.getUint32(offset + 4);
    }
    return offset + Size.header <= this.#length ? offset : undefined;
  }

  /**
   * Returns the bytes before PROOF and the bytes through its end, and stops recording. Call it
   * once, when PROOF is complete.
   *
   * @throws {FramesError} `internal` if no PROOF was recorded
   */
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

/** The client's side of the proof. */
export class ClientProof {
  readonly #key: Key;
  readonly #received = new Transcript();
  #exporter: Uint8Array | undefined;
  #sent: Uint8Array = new Uint8Array(0);

  constructor(key: Key) {
    this.#key = key;
  }

  /** Id of the key, for HELLO. */
  get keyId(): string {
    return this.#key.id;
  }

  /** Whether the server has proved the key. */
  isDone = false;

  /**
   * Returns the body of PROOF.
   *
   * @param exporter keying material of the TLS channel
   * @param sent bytes sent before PROOF: preface and HELLO
   */
  create(exporter: Uint8Array, sent: Uint8Array): Uint8Array {
    this.#exporter = exporter;
    this.#sent = sent;
    return computeProof(this.#key, "client", exporter, sent);
  }

  /** Records the PROOF message that was sent, because the server's proof covers it. */
  onSent(message: Uint8Array): void {
    this.#sent = Buffer.concat([this.#sent, message]);
  }

  /** Records received bytes, because the server's proof covers them. */
  onReceived(chunk: Uint8Array): void {
    this.#received.add(chunk);
  }

  /**
   * Verifies the server's PROOF, in constant time.
   *
   * @throws {FramesError} `impostor` if it is wrong
   */
  verify(proof: Uint8Array): void {
    const { beforeProof } = this.#received.finish();
    const exporter = this.#exporter;
    const isValid =
      exporter !== undefined &&
      crypto.timingSafeEqual(
        proof,
        computeProof(this.#key, "server", exporter, this.#sent, beforeProof),
      );
    if (!isValid) throw new FramesError("impostor");
    this.isDone = true;
  }
}

// Used for an unknown key id, so that the answer takes as long as for a wrong proof. Its proofs are
// rejected.
const dummyKey = new Key(new Uint8Array(keyLengthBytes));

/** The server's side of the proof. */
export class ServerProof {
  readonly #exporter: Uint8Array;
  readonly #received = new Transcript();

  /** @param exporter keying material of the TLS channel */
  constructor(exporter: Uint8Array) {
    this.#exporter = exporter;
  }

  /** Bytes of memory used for the recorded bytes. */
  get bufferedBytes(): number {
    return this.#received.bufferedBytes;
  }

  /** Records received bytes, because the client's proof covers them. */
  onReceived(chunk: Uint8Array): void {
    this.#received.add(chunk);
  }

  /**
   * Verifies the client's PROOF, in constant time. Returns the body of the server's PROOF.
   *
   * @param key the key with HELLO's id; `undefined` if there is none
   * @param proof body of the client's PROOF
   * @param sent bytes that the server sends before its PROOF: the preface
   * @throws {FramesError} `not-let-in` if the key is unknown or the proof is wrong
   */
  answer(key: Key | undefined, proof: Uint8Array, sent: Uint8Array): Uint8Array {
    const { beforeProof, throughProof } = this.#received.finish();
    const expected = computeProof(key ?? dummyKey, "client", this.#exporter, beforeProof);
    if (!crypto.timingSafeEqual(proof, expected) || key === undefined)
      throw new FramesError("not-let-in");
    return computeProof(key, "server", this.#exporter, throughProof, sent);
  }
}
