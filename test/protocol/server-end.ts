/** The server's end of a connection without I/O: the handshake, and then the receiver. */
import type { FrameStore } from "../../src/frame.ts";
import {
  type AdmittedClient,
  type KeyFinder,
  ServerHandshake,
} from "../../src/protocol/handshake.ts";
import type {
  FlushSnapshot,
  ReceiverHost,
  ReceiverLimits,
} from "../../src/protocol/receive/receiver-events.ts";
import { Receiver } from "../../src/protocol/receive/receiver.ts";
import type { FramesError } from "../../src/errors.ts";
import type { Done, Hello, Welcome } from "../../src/wire/messages.ts";

type Fields = Partial<Welcome>;

export interface ServerEndEvents extends ReceiverHost {
  /** Returns the fields of WELCOME beside the limits. An error refuses the client. */
  onHello(hello: Hello): Fields | Promise<Fields>;
  /** Called for a client that receives, when it has got WELCOME. */
  onReceiver?(client: AdmittedClient): void;
}

const noFrames: Done = { frames: 0, stored: 0, present: 0, refused: 0, aborted: 0 };

/** Receives from a client as a server does, without sockets. */
export class ServerEnd {
  readonly #store: FrameStore;
  readonly #grants: ReceiverLimits;
  readonly #timeoutMs: number;
  readonly #events: ServerEndEvents;
  readonly #handshake: ServerHandshake;
  #receiver: Receiver | undefined;
  #now: number;

  constructor(
    store: FrameStore,
    grants: ReceiverLimits,
    timeoutMs: number,
    now: number,
    events: ServerEndEvents,
    keys?: KeyFinder,
    exporter?: Uint8Array,
  ) {
    this.#store = store;
    this.#grants = grants;
    this.#timeoutMs = timeoutMs;
    this.#events = events;
    this.#now = now;
    this.#handshake = new ServerHandshake(keys, exporter, timeoutMs, now);
  }

  receive(chunk: Uint8Array, now: number): void {
    this.#now = now;
    if (this.#receiver !== undefined) return this.#receiver.receive(chunk, now);
    const hello = this.#handshake.receive(chunk, now);
    if (hello === undefined) return;
    const fields = this.#events.onHello(hello);
    if (!(fields instanceof Promise)) return this.#welcome(hello, fields);
    fields
      .then((known) => this.#welcome(hello, known))
      .catch((error: unknown) => this.#events.onError?.(error));
  }

  #welcome({ role }: Hello, fields: Fields): void {
    const client = this.#handshake.welcome(this.#store, { ...this.#grants, ...fields });
    if (role === "receive") return this.#events.onReceiver?.(client);
    this.#receiver = new Receiver({
      ...this.#events,
      store: this.#store,
      grants: this.#grants,
      timeoutMs: this.#timeoutMs,
      now: this.#now,
      peer: client,
    });
    this.#receiver.start();
  }

  tick(now: number, isUnread?: boolean): void {
    (this.#receiver ?? this.#handshake).tick(now, isUnread);
  }

  drain(now: number): Uint8Array[] {
    return [...this.#handshake.drain(), ...(this.#receiver?.drain(now) ?? [])];
  }

  ack(now: number, flushed?: FlushSnapshot): void {
    this.#receiver?.ack(now, flushed);
  }

  ping(now: number): string {
    return this.#receiver!.ping(now);
  }

  stop(error?: FramesError): void {
    if (this.#receiver === undefined) this.#handshake.close();
    else this.#receiver.stop(error);
  }

  fail(error: FramesError): void {
    (this.#receiver ?? this.#handshake).fail(error);
  }

  close(): void {
    (this.#receiver ?? this.#handshake).close();
  }

  get hello(): Hello | undefined {
    return this.#handshake.hello;
  }

  get counts(): Readonly<Done> {
    return this.#receiver?.counts ?? noFrames;
  }

  get foundCount(): number {
    return this.#receiver?.foundCount ?? 0;
  }

  get sources(): Receiver["sources"] {
    return this.#receiver?.sources ?? [];
  }

  get bufferedBytes(): number {
    return (this.#receiver ?? this.#handshake).bufferedBytes;
  }

  get unreceipted(): number {
    return this.#receiver?.unreceipted ?? 0;
  }

  get flushSnapshot(): FlushSnapshot {
    return this.#receiver?.flushSnapshot ?? { frames: 0, answers: 0 };
  }

  get isPaused(): boolean {
    return this.#receiver?.isPaused ?? this.#handshake.isAdmitted;
  }

  get isDone(): boolean {
    return this.#receiver?.isDone === true;
  }

  get isEnding(): boolean {
    return this.#receiver?.isEnding === true;
  }

  isFlushDue(): boolean {
    return this.#receiver?.isFlushDue() === true;
  }

  get needsFlush(): boolean {
    return this.#receiver?.needsFlush === true;
  }
}
