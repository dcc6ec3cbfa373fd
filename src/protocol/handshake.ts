/**
 * The handshake of a connection: preface, HELLO, PROOF and WELCOME (SPEC sections 2, 4 and 10).
 * Both roles, send and receive, use it.
 */
import { ClientProof, ServerProof } from "../auth/key-proof.ts";
import type { Key, KeyEntry } from "../auth/key.ts";
import type { FrameStore } from "../frame.ts";
import { FramesError } from "../errors.ts";
import { Decoder, type MessageHandler } from "../wire/decode.ts";
import { encodeControl, encodeProof } from "../wire/encode.ts";
import {
  type ControlMessage,
  type Hello,
  preface,
  MessageType,
  unexpectedMessage,
  videoFeature,
  type Welcome,
} from "../wire/messages.ts";
import { peerError } from "./frame-errors.ts";
import { Keepalive } from "./keepalive.ts";

/** Finds the keys that clients claim. */
export interface KeyFinder {
  /** Returns the key with the id that HELLO names, or `undefined` if the server does not know it. */
  find(id: string): KeyEntry | undefined;
}

/** Returns the preface as bytes. */
export function encodePreface(): Uint8Array {
  return new TextEncoder().encode(preface);
}

/** Fields of WELCOME that depend on the server and on the client. */
export type WelcomeFields = Omit<Welcome, "durable" | "receipts">;

/** An admitted client, for the machine of its role. */
export interface AdmittedClient {
  readonly hello: Hello;
  /** The key that the client proved. */
  readonly key: KeyEntry | undefined;
  /** Whether the server requires a key. One that does not ignores a PROOF (SPEC section 10). */
  readonly requiresKey: boolean;
  /** Has read the handshake. It is paused, and keeps what follows. */
  readonly decoder: Decoder;
  /** Memory of the HELLO, in bytes. */
  readonly helloBytes: number;
}

/** Memory of a text in HELLO beside its characters, in bytes, with its places in lists and sets. */
const textOverheadBytes = 150;

/**
 * Server side of every connection: reads HELLO and PROOF, without I/O. The machine of the client's role
 * continues with its decoder after `welcome`.
 */
export class ServerHandshake implements MessageHandler {
  readonly #decoder = new Decoder(this);
  readonly #keepalive: Keepalive;
  readonly #keys: KeyFinder | undefined;
  #key: KeyEntry | undefined;
  #proof: ServerProof | undefined;
  #hello: Hello | undefined;
  #helloBytes = 0;
  #isAdmitted = false;
  #isPrefaceSent = false;
  #isStopped = false;
  #outgoing: Uint8Array[] = [];

  /**
   * @param keys finds the client's key; `undefined` admits clients without a key
   * @param exporter keying material exported from the TLS channel, 32 bytes (RFC 9266)
   * @param timeoutMs limits the time for HELLO and PROOF
   * @param now ms since 1970 of a clock that never jumps, as in all methods
   */
  constructor(
    keys: KeyFinder | undefined,
    exporter: Uint8Array | undefined,
    timeoutMs: number,
    now: number,
  ) {
    this.#keys = keys;
    this.#keepalive = new Keepalive(now, timeoutMs);
    if (keys === undefined) return;
    if (exporter === undefined) throw new FramesError("internal", "A key is required without TLS");
    this.#proof = new ServerProof(exporter);
  }

  /** The key that the client has proved. */
  get key(): KeyEntry | undefined {
    return this.#key;
  }

  /** The client's HELLO, or `undefined` until it arrives. */
  get hello(): Hello | undefined {
    return this.#hello;
  }

  /** Whether HELLO and the required PROOF have arrived. Nothing more is read before `welcome`. */
  get isAdmitted(): boolean {
    return this.#isAdmitted;
  }

  /** Bytes kept: of HELLO, of messages that the PROOF covers, and what has followed them. */
  get bufferedBytes(): number {
    return this.#decoder.bufferedBytes + this.#helloBytes + (this.#proof?.bufferedBytes ?? 0);
  }

  /**
   * Processes bytes from the client.
   *
   * @returns HELLO, when these bytes have completed the handshake
   * @throws {FramesError} `not-let-in`, or as the decoder; pass the error to `fail`
   */
  receive(chunk: Uint8Array, now: number): Hello | undefined {
    if (this.#isStopped) return undefined;
    this.#keepalive.onReceived(now);
    const wasAdmitted = this.#isAdmitted;
    this.#proof?.onReceived(chunk);
    this.#decoder.receive(chunk);
    return this.#isAdmitted && !wasAdmitted ? this.#hello : undefined;
  }

  /**
   * Checks the deadline of the handshake. Call it about once a second.
   *
   * @throws {FramesError} `timeout`
   */
  tick(now: number): void {
    if (this.#isStopped || this.#isAdmitted) return;
    this.#keepalive.tick(now, "HELLO", this.#decoder.incompleteMessage);
  }

  /**
   * Queues WELCOME, and lets the machine of the client's role continue with the decoder.
   *
   * @param store of the server
   * @param fields the other fields of WELCOME
   */
  welcome(
    store: Pick<FrameStore, "isDurable" | "receiptIntervalMs">,
    fields: WelcomeFields,
  ): AdmittedClient {
    const hello = this.#hello!;
    const { receiptIntervalMs } = store;
    this.#sendPreface();
    const welcome: Welcome = {
      durable: hello.role === "send" && (hello.durable === true || store.isDurable),
      features: ["offer", "replace", "moved-away", videoFeature],
      ...(receiptIntervalMs === undefined ? {} : { receipts: receiptIntervalMs }),
      ...fields,
    };
    this.#outgoing.push(encodeControl(MessageType.welcome, 0, welcome));
    if (hello.features?.includes(videoFeature) === true) this.#decoder.acceptKeyFlag();
    return {
      hello,
      key: this.#key,
      requiresKey: this.#keys !== undefined,
      decoder: this.#decoder,
      helloBytes: this.#helloBytes,
    };
  }

  /** Returns the messages to send now, and clears the queue. */
  drain(): Uint8Array[] {
    const outgoing = this.#outgoing;
    this.#outgoing = [];
    return outgoing;
  }

  /** Ends the connection: queues ERROR, unless the peer does not speak FRAMES/1. */
  fail(error: FramesError): void {
    this.close();
    if (error.code === "foreign") return;
    this.#sendPreface();
    this.#outgoing.push(encodeControl(MessageType.error, 0, error.wireFields));
  }

  /** Releases the received bytes, and the names in HELLO, when the connection ends. */
  close(): void {
    this.#isStopped = true;
    this.#decoder.discard();
    this.#proof = undefined;
    if (this.#hello?.sources !== undefined) {
      const { sources, ...hello } = this.#hello;
      this.#hello = hello;
    }
  }

  #sendPreface(): void {
    if (!this.#isPrefaceSent) this.#outgoing.push(encodePreface());
    this.#isPrefaceSent = true;
  }

  #admit(): void {
    this.#isAdmitted = true;
    this.#decoder.pause();
  }

  /** Whether HELLO has arrived and the required PROOF has not. */
  get #isAwaitingProof(): boolean {
    return this.#hello !== undefined && !this.#isAdmitted;
  }

  #unexpected(type: number): FramesError {
    return this.#isAwaitingProof ? new FramesError("not-let-in") : unexpectedMessage(type);
  }

  // Callbacks of the decoder.

  onControl(message: ControlMessage): void {
    if (message.type === MessageType.error) throw peerError("sender", message.body);
    if (message.type !== MessageType.hello) throw this.#unexpected(message.type);
    if (this.#hello !== undefined) throw unexpectedMessage(MessageType.hello);
    const { sources, ...fields } = message.body;
    // Only a client that receives selects sources.
    this.#hello = fields.role === "receive" ? message.body : fields;
    const { features = [], software = "", key } = fields;
    const texts = [...(this.#hello.sources ?? []), ...features, software];
    this.#helloBytes = texts.reduce((sum, text) => sum + text.length + textOverheadBytes, 0);
    if (this.#keys === undefined) return this.#admit();
    if (key !== undefined) return;
    const hint = "run frames key there, then frames key save on the client";
    throw new FramesError("not-let-in", `The server requires a key; ${hint}`);
  }

  onProof(bytes: Uint8Array): void {
    if (!this.#isAwaitingProof) throw unexpectedMessage(MessageType.proof);
    const found = this.#keys!.find(this.#hello!.key!);
    const proof = this.#proof!.answer(found?.key, bytes, encodePreface());
    this.#key = found;
    this.#proof = undefined;
    this.#sendPreface();
    this.#outgoing.push(encodeProof(proof));
    this.#admit();
  }

  onFrame(): void {
    throw this.#unexpected(MessageType.frame);
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
