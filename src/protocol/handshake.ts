/**
 * The beginning of a conversation, up to WELCOME (SPEC sections 2, 4 and 10), whichever way the frames go
 * after it: what the server does in it, and what the client does.
 */
import { ClientProof, ServerProof } from "../auth/key-proof.ts";
import type { Key } from "../auth/key.ts";
import { FramesError } from "../errors.ts";
import { encodeControl, encodeProof } from "../wire/encode.ts";
import { type Hello, preface, MessageType, unexpectedMessage } from "../wire/messages.ts";

/** What asks for the proof of a key. */
export interface KeyVerifier {
  /** What the TLS channel exports: 32 bytes. */
  readonly exporter: Uint8Array;
  /** The key that HELLO names, if there is one. */
  findKey(id: string): Key | undefined;
  /** What the key is called that was found. */
  readonly keyName: string | undefined;
}

/** A preface, as bytes. */
export function encodePreface(): Uint8Array {
  return new TextEncoder().encode(preface);
}

/** The server's part: lets a client in, if it proves a key where one is asked for. */
export class ServerHandshake {
  /** What it waits for, for people. */
  readonly awaited = "HELLO";
  readonly #verifier: KeyVerifier | undefined;
  #proof: ServerProof | undefined;
  #hello: Hello | undefined;

  /** @param verifier whom a client must prove its key to, if it must */
  constructor(verifier: KeyVerifier | undefined) {
    this.#verifier = verifier;
    if (verifier !== undefined) this.#proof = new ServerProof(verifier.exporter);
  }

  /** The client's HELLO, once it came. */
  get hello(): Hello | undefined {
    return this.#hello;
  }

  /** What the key is called that was proved. */
  get keyName(): string | undefined {
    return this.#verifier?.keyName;
  }

  /** Whether HELLO came, and PROOF is to come. */
  get isAwaitingProof(): boolean {
    return this.#hello !== undefined && this.#proof !== undefined;
  }

  /** Whether no key is asked for: a PROOF is then ignored (SPEC section 10). */
  get isKeyless(): boolean {
    return this.#verifier === undefined;
  }

  /** Bytes that are held of what the client said. */
  get bufferedBytes(): number {
    return this.#proof?.bufferedBytes ?? 0;
  }

  /** Takes what the client says. */
  onReceived(chunk: Uint8Array): void {
    this.#proof?.onReceived(chunk);
  }

  /**
   * HELLO came: whether the client is let in, and no proof has to come first.
   *
   * @throws {FramesError} `not-let-in` if it names no key, and one is asked for
   */
  acceptHello(hello: Hello): boolean {
    this.#hello = hello;
    if (this.#verifier === undefined) return true;
    if (hello.key === undefined) {
      throw new FramesError("not-let-in", "The server lets nobody in without a key");
    }
    return false;
  }

  /**
   * PROOF came: the message that answers it, behind the preface.
   *
   * @throws {FramesError} `not-let-in`
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

  /** Nothing more comes of it. */
  close(): void {
    this.#proof = undefined;
  }
}

/** The client's part. */
export class ClientHandshake {
  /** What it waits for, for people. */
  readonly awaited = "answer of a frames server (WELCOME)";
  /** What is said. */
  readonly hello: Hello;
  readonly #proof: ClientProof | undefined;

  /** @param key is proved to the server, which must prove that it holds it too */
  constructor(hello: Hello, key: Key | undefined) {
    if (key !== undefined) this.#proof = new ClientProof(key);
    const keyField = this.#proof === undefined ? {} : { key: this.#proof.keyId };
    this.hello = { ...hello, ...keyField };
  }

  /** The messages that it begins with: preface and HELLO. */
  openingMessages(): Uint8Array[] {
    return [encodePreface(), encodeControl(MessageType.hello, 0, this.hello)];
  }

  /**
   * The connection has come about: PROOF, if there is a key. It goes with what was said before in one flight.
   *
   * @param exporter what its TLS channel exports, if it is one
   * @throws {FramesError} `plaintext` if there is a key to prove and no such channel
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

  /** Takes what the server says. */
  onReceived(chunk: Uint8Array): void {
    if (this.#proof?.isDone === false) this.#proof.onReceived(chunk);
  }

  /**
   * PROOF came.
   *
   * @throws {FramesError} `impostor` if it is wrong, `protocol` if none was to come
   */
  checkProof(bytes: Uint8Array): void {
    if (this.#proof === undefined || this.#proof.isDone) throw unexpectedMessage(MessageType.proof);
    this.#proof.verify(bytes);
  }

  /**
   * WELCOME came: whoever only says that it lets us in may be anybody.
   *
   * @throws {FramesError} `impostor`
   */
  checkWelcome(): void {
    if (this.#proof?.isDone === false) throw new FramesError("impostor");
  }
}
