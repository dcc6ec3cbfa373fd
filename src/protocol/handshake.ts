/**
 * The handshake of a connection: preface, HELLO, PROOF and WELCOME (SPEC sections 2, 4 and 10).
 * Both roles, send and receive, use it.
 */
import { ClientProof, ServerProof } from "../auth/key-proof.ts";
import type { Key } from "../auth/key.ts";
import { FramesError } from "../errors.ts";
import { encodeControl, encodeProof } from "../wire/encode.ts";
import { type Hello, preface, MessageType, unexpectedMessage } from "../wire/messages.ts";

/** Finds the key that a client claims, so that the server can verify its PROOF. */
export interface KeyVerifier {
  /** Keying material exported from the TLS channel, 32 bytes (RFC 9266). */
  readonly exporter: Uint8Array;
  /**
   * Returns the key with the id that HELLO names, or `undefined` if the server does not know it.
   */
  findKey(id: string): Key | undefined;
  /** Name of the key that `findKey` returned last. */
  readonly keyName: string | undefined;
}

/** Returns the preface as bytes. */
export function encodePreface(): Uint8Array {
  return new TextEncoder().encode(preface);
}

/** Server side: admits a client, after verifying its PROOF if the server requires a key. */
export class ServerHandshake {
  /** The message the server waits for, as worded in timeout errors. */
  readonly awaited = "HELLO";
  readonly #verifier: KeyVerifier | undefined;
  #proof: ServerProof | undefined;
  #hello: Hello | undefined;

  /** @param verifier finds the client's key; `undefined` admits clients without a key */
  constructor(verifier: KeyVerifier | undefined) {
    this.#verifier = verifier;
    if (verifier !== undefined) this.#proof = new ServerProof(verifier.exporter);
  }

  /** The client's HELLO, or `undefined` until it arrives. */
  get hello(): Hello | undefined {
    return this.#hello;
  }

  /** Name of the key that the client proved. */
  get keyName(): string | undefined {
    return this.#verifier?.keyName;
  }

  /** Whether HELLO has arrived and the required PROOF has not. */
  get isAwaitingProof(): boolean {
    return this.#hello !== undefined && this.#proof !== undefined;
  }

  /** Whether the server requires no key. It then ignores a PROOF (SPEC section 10). */
  get isKeyless(): boolean {
    return this.#verifier === undefined;
  }

  /** Bytes of the client's messages buffered until its PROOF can be verified. */
  get bufferedBytes(): number {
    return this.#proof?.bufferedBytes ?? 0;
  }

  /** Records received bytes, because the PROOF covers them. */
  onReceived(chunk: Uint8Array): void {
    this.#proof?.onReceived(chunk);
  }

  /**
   * Handles HELLO. Returns whether the client is admitted now; `false` means that PROOF must come
   * first.
   *
   * @throws {FramesError} `not-let-in` if HELLO names no key and the server requires one
   */
  acceptHello(hello: Hello): boolean {
    this.#hello = hello;
    if (this.#verifier === undefined) return true;
    if (hello.key === undefined) {
      throw new FramesError(
        "not-let-in",
        "The server requires a key; run frames key there, then frames key save on the client",
      );
    }
    return false;
  }

  /**
   * Verifies the client's PROOF. Returns the server's own PROOF message, to be sent after the
   * preface.
   *
   * @throws {FramesError} `not-let-in` if the key is unknown or the proof is wrong
   */
  answerProof(bytes: Uint8Array): Uint8Array {
    const proof = this.#proof!.answer(
      this.#verifier!.findKey(this.#hello!.key!),
      bytes,
      encodePreface(),
    );
    this.#proof = undefined;
    return encodeProof(proof);
  }

  /** Releases the recorded bytes, and the names in HELLO, when the connection ends. */
  close(): void {
    this.#proof = undefined;
    if (this.#hello?.sources !== undefined) {
      const { sources, ...hello } = this.#hello;
      this.#hello = hello;
    }
  }
}

/** Client side: sends HELLO and PROOF, and verifies the server's PROOF. */
export class ClientHandshake {
  /** The message the client waits for, as worded in timeout errors. */
  readonly awaited = "answer of a frames server (WELCOME)";
  /** The HELLO to send, with the id of the key added. */
  readonly hello: Hello;
  readonly #proof: ClientProof | undefined;

  /** @param key proved to the server, which must prove that it has the same key */
  constructor(hello: Hello, key: Key | undefined) {
    if (key !== undefined) this.#proof = new ClientProof(key);
    const keyField = this.#proof === undefined ? {} : { key: this.#proof.keyId };
    this.hello = { ...hello, ...keyField };
  }

  /** Returns the first messages of the client: preface and HELLO. */
  openingMessages(): Uint8Array[] {
    return [encodePreface(), encodeControl(MessageType.hello, 0, this.hello)];
  }

  /**
   * Returns the PROOF message, or `undefined` without a key. The caller sends it with
   * `sentMessages` in one flight.
   *
   * @param exporter keying material of the TLS channel; `undefined` on plain TCP
   * @param sentMessages preface and HELLO, which the proof covers
   * @throws {FramesError} `plaintext` if there is a key but no TLS channel
   */
  createProof(
    exporter: Uint8Array | undefined,
    sentMessages: readonly Uint8Array[],
  ): Uint8Array | undefined {
    if (this.#proof === undefined) return undefined;
    if (exporter === undefined) throw new FramesError("plaintext");
    const message = encodeProof(this.#proof.create(exporter, Buffer.concat(sentMessages)));
    this.#proof.onSent(message);
    return message;
  }

  /** Records received bytes, because the server's PROOF covers them. */
  onReceived(chunk: Uint8Array): void {
    if (this.#proof?.isDone === false) this.#proof.onReceived(chunk);
  }

  /**
   * Verifies the server's PROOF.
   *
   * @throws {FramesError} `impostor` if it is wrong, `protocol` if no PROOF was expected
   */
  checkProof(bytes: Uint8Array): void {
    if (this.#proof === undefined || this.#proof.isDone) throw unexpectedMessage(MessageType.proof);
    this.#proof.verify(bytes);
  }

  /**
   * Checks that a WELCOME comes after a valid PROOF. WELCOME alone does not authenticate the
   * server.
   *
   * @throws {FramesError} `impostor` if the server has not proved the key
   */
  checkWelcome(): void {
    if (this.#proof?.isDone === false) throw new FramesError("impostor");
  }
}
