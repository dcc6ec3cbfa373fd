/**
 * The beginning of a conversation, up to WELCOME (SPEC sections 2, 4 and 10), whichever way the frames go
 * after it: what the server does in it, and what the client does.
 */
import { ClientProof, ServerProof } from "../auth/handshake.ts";
import type { Key } from "../auth/key.ts";
import { FramesError } from "../errors.ts";
import { encodeControl, encodeProof } from "../wire/encode.ts";
import { type Hello, preface, Type, unexpected } from "../wire/messages.ts";
import type { Gate } from "./receiving.ts";

/** A preface, as bytes. */
export function encodePreface(): Uint8Array {
  return new TextEncoder().encode(preface);
}

/** The server's part: lets a client in, if it proves a key where one is asked for. */
export class ServerGreeting {
  /** What it waits for, for people. */
  readonly awaited = "HELLO";
  readonly #gate: Gate | undefined;
  #proof: ServerProof | undefined;
  #hello: Hello | undefined;

  /** @param gate whom a client must prove its key to, if it must */
  constructor(gate: Gate | undefined) {
    this.#gate = gate;
    if (gate !== undefined) this.#proof = new ServerProof(gate.exporter);
  }

  /** The client's HELLO, once it came. */
  get hello(): Hello | undefined {
    return this.#hello;
  }

  /** What the key is called that was proved. */
  get key(): string | undefined {
    return this.#gate?.name;
  }

  /** Whether HELLO came, and PROOF is to come. */
  get isProving(): boolean {
    return this.#hello !== undefined && this.#proof !== undefined;
  }

  /** Whether no key is asked for: a PROOF is then ignored (SPEC section 10). */
  get isOpen(): boolean {
    return this.#gate === undefined;
  }

  /** Bytes that are held of what the client said. */
  get held(): number {
    return this.#proof?.held ?? 0;
  }

  /** Takes what the client says. */
  heard(chunk: Uint8Array): void {
    this.#proof?.heard(chunk);
  }

  /**
   * HELLO came: whether the client is let in, and no proof has to come first.
   *
   * @throws {FramesError} `not-let-in` if it names no key, and one is asked for
   */
  greet(hello: Hello): boolean {
    this.#hello = hello;
    if (this.#gate === undefined) return true;
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
  answer(bytes: Uint8Array): Uint8Array {
    const proof = this.#proof!.answer(this.#gate!.find(this.#hello!.key!), bytes, encodePreface());
    this.#proof = undefined;
    return encodeProof(proof);
  }

  /** Nothing more comes of it. */
  close(): void {
    this.#proof = undefined;
  }
}

/** The client's part. */
export class ClientGreeting {
  /** What it waits for, for people. */
  readonly awaited = "answer of a frames server (WELCOME)";
  /** What is said. */
  readonly hello: Hello;
  readonly #proof: ClientProof | undefined;

  /** @param key is proved to the server, which must prove that it holds it too */
  constructor(hello: Hello, key: Key | undefined) {
    if (key !== undefined) this.#proof = new ClientProof(key);
    const proving = this.#proof === undefined ? {} : { key: this.#proof.keyId };
    this.hello = { ...hello, ...proving };
  }

  /** The messages that it begins with: preface and HELLO. */
  opening(): Uint8Array[] {
    return [encodePreface(), encodeControl(Type.hello, 0, this.hello)];
  }

  /**
   * The connection has come about: PROOF, if there is a key. It goes with what was said before in one flight.
   *
   * @param exporter what its TLS channel exports, if it is one
   * @throws {FramesError} `plaintext` if there is a key to prove and no such channel
   */
  prove(exporter: Uint8Array | undefined, said: readonly Uint8Array[]): Uint8Array | undefined {
    if (this.#proof === undefined) return undefined;
    if (exporter === undefined) throw new FramesError("plaintext");
    const message = encodeProof(this.#proof.make(exporter, Buffer.concat(said)));
    this.#proof.said(message);
    return message;
  }

  /** Takes what the server says. */
  heard(chunk: Uint8Array): void {
    if (this.#proof?.isDone === false) this.#proof.heard(chunk);
  }

  /**
   * PROOF came.
   *
   * @throws {FramesError} `impostor` if it is wrong, `protocol` if none was to come
   */
  check(bytes: Uint8Array): void {
    if (this.#proof === undefined || this.#proof.isDone) throw unexpected(Type.proof);
    this.#proof.check(bytes);
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
