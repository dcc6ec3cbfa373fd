/**
 * The sending end of a conversation (SPEC sections 4 to 8), as a machine without I/O: bytes and
 * times go in, bytes come out. Frames are pulled from their sources when there is room for them,
 * read straight into the outgoing buffer, and forgotten when their receipt is in.
 */
import type { Key } from "../../auth/key.ts";
import { errorByNumber, FramesError, truncateMessage } from "../../errors.ts";
import type { Frame, FrameSource } from "../../frame.ts";
import { Decoder, type MessageHandler } from "../../wire/decode.ts";
import { encodeControl } from "../../wire/encode.ts";
import {
  type ControlBodies,
  type ControlMessage,
  type ControlType,
  type Done,
  type Hello,
  MessageType,
  typeName,
  unexpectedMessage,
  type Welcome,
} from "../../wire/messages.ts";
import { ClientHandshake } from "../handshake.ts";
import { Keepalive, toWireTime } from "../keepalive.ts";
import type { Undelivered } from "../progress.ts";
import type { OutgoingSource } from "./outgoing-source.ts";
import type { SendPolicy } from "./scheduler-hooks.ts";
import { Scheduler } from "./scheduler.ts";
import { WriteBatch } from "./write-batch.ts";

/** What the machine tells its host. */
export interface SenderEvents {
  /** Something can be sent that could not before: call `transmit`. */
  onWritable(): void;
  onWelcome?(welcome: Welcome): void;
  onUndelivered?(report: Undelivered): void;
  /** Whether nothing is to be begun for now: whoever says so wakes `transmit` up later. */
  isPaused?(): boolean;
  /** Whether more sources may come: no END is said before that is over. */
  canAddSources?(): boolean;
  /** The server has a frame, whose bytes have this CRC-32. */
  onDelivered?(source: FrameSource, frame: Frame, crc: number): void;
  /** A message goes or came, for those who want to see the conversation. */
  trace?(direction: "->" | "<-", line: string): void;
}

/** PONGs that wait to be sent: whoever sends more PINGs meanwhile has the answers to those. */
const maxQueuedPongs = 1000;

type Phase = "handshake" | "open" | "ending" | "done" | "failed";

/** One connection's conversation. */
export class Sender implements MessageHandler {
  readonly #decoder = new Decoder(this);
  readonly #events: SenderEvents;
  readonly #sources: readonly OutgoingSource[];
  readonly #handshake: ClientHandshake;
  readonly #policy: SendPolicy;
  readonly #keepalive: Keepalive;
  readonly #controls: Uint8Array[] = [];
  #scheduler: Scheduler | undefined;
  #phase: Phase = "handshake";
  #welcome: Welcome | undefined;
  #now: number;
  #failure: { error: unknown } | undefined;
  /** PONGs that may not have left yet. */
  #pongs = 0;
  #done: Done | undefined;

  /**
   * @param sources what is to be sent, with what an earlier connection left of it
   * @param now milliseconds since 1970 by a clock that never jumps, as everywhere here
   * @param key is proved to the server, which must prove that it holds it too
   */
  constructor(
    sources: readonly OutgoingSource[],
    hello: Hello,
    policy: Pick<SendPolicy, "checksum">,
    timeoutMs: number,
    now: number,
    events: SenderEvents,
    key?: Key,
  ) {
    this.#handshake = new ClientHandshake({ ...hello, features: ["offer", "replace"] }, key);
    this.#events = events;
    this.#now = now;
    this.#policy = { ...policy, skipConflicts: hello.conflict === "skip" };
    this.#keepalive = new Keepalive(now, timeoutMs);
    this.#sources = sources;
    events.trace?.("->", `HELLO ${JSON.stringify(this.#handshake.hello)}`);
    this.#controls.push(...this.#handshake.openingMessages());
  }

  /** The server's grants, once they came. */
  get welcome(): Welcome | undefined {
    return this.#welcome;
  }

  /** The server's last word, once it came. */
  get done(): Done | undefined {
    return this.#done;
  }

  /** What a source threw: the end of the delivery. */
  get failure(): { error: unknown } | undefined {
    return this.#failure;
  }

  /** Whether the server owes no receipt and no answer. */
  get isIdle(): boolean {
    return this.#phase === "open" && this.#scheduler!.isIdle;
  }

  /**
   * Another source came, whose outlet is among the outlets from now on.
   *
   * @throws {FramesError} `limit` if the server takes no more
   */
  addSource(source: OutgoingSource): void {
    if (this.#scheduler === undefined) return;
    this.#checkSources(this.#welcome!);
    this.#scheduler.add(source);
    this.#events.onWritable();
  }

  /** Ends the conversation: `transmit` gives what is still to be said, ERROR last. */
  fail(error: FramesError): void {
    if (this.#phase === "done" || this.#phase === "failed") return;
    this.#send(MessageType.error, 0, error.wireFields);
    this.#phase = "failed";
  }

  /** The connection is no more: what is not settled goes back to its outlets. */
  returnToSources(): void {
    this.#phase = "failed";
    this.#scheduler?.returnToSources();
  }

  /**
   * The connection has come about: deadlines count from here.
   *
   * @param exporter what its TLS channel exports, if it is one
   * @throws {FramesError} `plaintext` if there is a key to prove and no such channel
   */
  onConnected(now: number, exporter: Uint8Array | undefined): void {
    this.#keepalive.restart(now);
    // Preface and HELLO wait in front of it: all three go in one flight.
    const proof = this.#handshake.createProof(exporter, this.#controls);
    if (proof !== undefined) this.#controls.push(proof);
  }

  /**
   * Takes bytes from the server.
   *
   * @throws {FramesError} if the conversation has failed; the machine is then of no more use
   */
  receive(chunk: Uint8Array, now: number): void {
    this.#now = now;
    this.#keepalive.onReceived(now);
    this.#handshake.onReceived(chunk);
    this.#decoder.receive(chunk);
  }

  /**
   * To be called about once a second.
   *
   * @throws {FramesError} `timeout`
   */
  tick(now: number): void {
    if (this.#phase === "done" || this.#phase === "failed") return;
    const awaited =
      this.#phase === "handshake"
        ? "answer of a frames server (WELCOME)"
        : this.#phase === "ending"
          ? "DONE"
          : "receipts";
    if (!this.#keepalive.tick(now, awaited, this.#decoder.incompleteMessage)) return;
    this.#send(MessageType.ping, 0, { time: toWireTime(now) });
    this.#events.onWritable();
  }

  /**
   * Packs what may be sent now into `into`, which is `outgoingBuffer` bytes long. Nothing to send is a
   * length of 0; when there is something again, `wake` is called.
   */
  transmit(into: Uint8Array, now: number): WriteBatch {
    const out = new WriteBatch(into);
    if (out.packAll(this.#controls)) {
      this.#pongs = 0;
      if (this.#phase === "open") this.#pack(out, now);
    }
    if (out.length > 0) this.#keepalive.onSent(now);
    return out;
  }

  #pack(out: WriteBatch, now: number): void {
    if (!this.#scheduler!.pack(out, now)) return;
    this.#phase = "ending";
    this.#send(MessageType.end, 0, { frames: this.#scheduler!.ended });
    if (!out.packAll(this.#controls)) this.#events.onWritable();
  }

  /** @param line what is shown of it, if not its JSON */
  #send<T extends ControlType>(
    type: T,
    source: number,
    body: ControlBodies[T],
    line = `${typeName(type)} ${JSON.stringify(body)}`,
  ): void {
    // ERROR was the last message, whatever a source gives after it.
    if (this.#phase === "failed") return;
    this.#events.trace?.("->", line);
    this.#controls.push(encodeControl(type, source, body));
  }

  #declareSource(source: OutgoingSource, stream: string): void {
    if (this.#phase === "failed") return;
    const name = stream === "" ? source.input.name : `${stream}/${source.input.name}`;
    this.#events.trace?.("->", `SOURCE ${source.id} ${name}`);
    this.#controls.push(source.encodeDeclaration(stream));
  }

  // What the decoder tells.

  onControl(message: ControlMessage): void {
    this.#events.trace?.("<-", `${typeName(message.type)} ${JSON.stringify(message.body)}`);
    switch (message.type) {
      case MessageType.error: {
        const { error, message: text, source, sequence } = message.body;
        const code = errorByNumber(error, "end");
        if (code === "damaged") this.#scheduler?.onDamaged(source, sequence);
        throw new FramesError(code, `The server says: ${truncateMessage(text)}`);
      }
      case MessageType.welcome:
        return this.#onWelcome(message.body);
      case MessageType.ping:
        this.#checkPhase(message.type, "open", "ending");
        if (++this.#pongs > maxQueuedPongs) return;
        this.#send(MessageType.pong, 0, { time: message.body.time, clock: toWireTime(this.#now) });
        return this.#events.onWritable();
      case MessageType.pong:
        return this.#checkPhase(message.type, "open", "ending");
      case MessageType.refused: {
        this.#checkPhase(message.type, "open", "ending");
        const { source, body } = message;
        const error = new FramesError(
          errorByNumber(body.error, "refusal"),
          truncateMessage(body.message),
        );
        this.#scheduler!.onRefused(source, body, error);
        return this.#events.onWritable();
      }
      case MessageType.answer:
        this.#checkPhase(message.type, "open");
        this.#scheduler!.onAnswer(message.source, message.body.answers);
        return this.#events.onWritable();
      case MessageType.done:
        this.#checkPhase(message.type, "ending");
        return this.#onDone(message.body);
      default:
        throw unexpectedMessage(message.type);
    }
  }

  #checkPhase(type: number, ...phases: Phase[]): void {
    if (!phases.includes(this.#phase)) throw unexpectedMessage(type);
  }

  #onWelcome(welcome: Welcome): void {
    this.#checkPhase(MessageType.welcome, "handshake");
    this.#handshake.checkWelcome();
    this.#checkGrants(welcome);
    this.#phase = "open";
    this.#welcome = welcome;
    this.#keepalive.onHandshakeDone();
    const { trace, onUndelivered, onDelivered, onWritable } = this.#events;
    this.#scheduler = new Scheduler(this.#sources, welcome, this.#policy, {
      controls: this.#controls,
      send: (...message) => this.#send(...message),
      declareSource: (source, stream) => this.#declareSource(source, stream),
      onFrameSent: (source, { sequence, name, size }) =>
        trace?.("->", `FRAME ${source} ${sequence} ${name} ${size} bytes`),
      ...(onDelivered === undefined ? {} : { onDelivered }),
      onUndelivered: (report) => onUndelivered?.(report),
      isPaused: () => this.#events.isPaused?.() === true,
      canAddSources: () => this.#events.canAddSources?.() === true,
      onError: (error) => (this.#failure ??= { error }),
      onWritable,
    });
    this.#events.onWelcome?.(welcome);
    onWritable();
  }

  /** Whether this server can do what was asked for. */
  #checkGrants(welcome: Welcome): void {
    const { durable, features = [], fresh } = welcome;
    this.#checkSources(welcome);
    if (this.#handshake.hello.durable === true && durable !== true) {
      throw new FramesError(
        "usage",
        "Cannot send with --move: this server does not flush what it receives to its disk",
      );
    }
    if (this.#handshake.hello.conflict === "replace" && !features.includes("replace")) {
      throw new FramesError(
        "usage",
        "Cannot send with --on-conflict replace: this server replaces nothing",
      );
    }
    const confirmed = this.#sources.reduce((sum, { progress }) => {
      return sum + progress.settled - progress.refused - progress.conflictsSkipped;
    }, 0);
    if (fresh === true && confirmed > 0) {
      throw new FramesError(
        "other-store",
        `The server has an empty store now, but it had confirmed ${confirmed} frames: is its disk mounted?`,
      );
    }
  }

  #checkSources({ limits: { sources } }: Welcome): void {
    const { length } = this.#sources;
    if (length <= sources) return;
    const message = `Cannot send ${length} sources at once: the server takes ${sources}`;
    throw new FramesError("limit", message);
  }

  onProof(bytes: Uint8Array): void {
    if (this.#phase !== "handshake") throw unexpectedMessage(MessageType.proof);
    this.#handshake.checkProof(bytes);
  }

  onReceipt(frames: number): void {
    this.#events.trace?.("<-", `RECEIPT ${frames}`);
    this.#checkPhase(MessageType.receipt, "open", "ending");
    this.#scheduler!.ack(frames, this.#now);
    this.#events.onWritable();
  }

  #onDone(done: Done): void {
    const settled = done.stored + done.present + done.refused + done.aborted;
    const { ended, refusals, aborts } = this.#scheduler!;
    if (done.frames !== ended || settled !== ended) {
      throw new FramesError(
        "protocol",
        `Cannot accept DONE: it counts ${settled} of ${done.frames} frames, ${ended} were sent`,
      );
    }
    // Frames that it refused without a word would count as delivered here.
    if (done.refused !== refusals || done.aborted !== aborts) {
      throw new FramesError(
        "protocol",
        `Cannot accept DONE: it counts ${done.refused} refused and ${done.aborted} aborted frames, ${refusals} and ${aborts} were`,
      );
    }
    this.#scheduler!.ack(ended, this.#now);
    this.#done = done;
    this.#phase = "done";
  }
}
