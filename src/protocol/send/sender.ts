/**
 * The sending end of a client's connection (SPEC sections 4 to 8), without I/O: bytes and times go
 * in, bytes come out. Frames are pulled from their sources when the window has room, and read
 * straight into the outgoing buffer. They are dropped from memory when their receipt arrives.
 */
import { errorByNumber, FramesError, truncateMessage, usageError } from "../../errors.ts";
import { Decoder, type MessageHandler } from "../../wire/decode.ts";
import {
  type ControlMessage,
  type Done,
  MessageType,
  typeName,
  unexpectedMessage,
  type Welcome,
  videoFeature,
} from "../../wire/messages.ts";
import { ClientHandshake } from "../handshake.ts";
import { Keepalive, toWireTime } from "../keepalive.ts";
import type { OutgoingSource } from "./outgoing-source.ts";
import { Scheduler } from "./scheduler.ts";
import type { SenderEvent } from "./sender-event.ts";
import type { SenderOptions } from "./sender-options.ts";
import { SenderOutput } from "./sender-output.ts";
import { WriteBatch } from "./write-batch.ts";

/** PONGs queued until the next `transmit`. Further PINGs are not answered until then. */
const maxQueuedPongs = 1000;

type Phase = "handshake" | "open" | "ending" | "done" | "failed";

/** One connection of a sending client. */
export class Sender implements MessageHandler {
  readonly #decoder = new Decoder(this);
  readonly #options: SenderOptions;
  readonly #sources: readonly OutgoingSource[];
  readonly #handshake: ClientHandshake;
  readonly #keepalive: Keepalive;
  readonly #output: SenderOutput;
  #scheduler: Scheduler | undefined;
  #phase: Phase = "handshake";
  #welcome: Welcome | undefined;
  #now: number;
  /** PONGs queued since the queue of control messages was last empty. */
  #pongs = 0;
  #done: Done | undefined;

  constructor(options: SenderOptions) {
    const { sources, hello, timeoutMs, now, key, reports = {} } = options;
    const features = ["offer", "replace", "moved-away", videoFeature];
    this.#handshake = new ClientHandshake({ ...hello, features }, key);
    this.#options = options;
    this.#now = now;
    this.#keepalive = new Keepalive(now, timeoutMs);
    this.#sources = sources;
    this.#output = new SenderOutput(reports);
    this.#output.trace("->", `HELLO ${JSON.stringify(this.#handshake.hello)}`);
    this.#output.messages.push(...this.#handshake.openingMessages());
  }

  /** The server's WELCOME, or `undefined` until it arrives. */
  get welcome(): Welcome | undefined {
    return this.#welcome;
  }

  /** The server's DONE, or `undefined` until it arrives. */
  get done(): Done | undefined {
    return this.#done;
  }

  /** The error that a source threw. It ends the delivery. */
  get failure(): { error: unknown } | undefined {
    return this.#scheduler?.failure;
  }

  /** Whether no frame is in flight and no OFFER is unanswered. */
  get isIdle(): boolean {
    return this.#phase === "open" && this.#scheduler!.isIdle;
  }

  /**
   * Adds a source. The caller has already appended it to `sources`.
   *
   * @throws {FramesError} `limit` if the server takes no further source
   */
  addSource(source: OutgoingSource): void {
    if (this.#scheduler === undefined) return;
    this.#checkSources(this.#welcome!);
    this.#scheduler.add(source);
    this.#options.onWritable();
  }

  /** Tells the server that a user stops this sender, so that an early end is no fault. */
  announceStop(now: number): void {
    if (this.#phase !== "open") return;
    this.#output.send(MessageType.ping, 0, { time: toWireTime(now), stopping: true });
  }

  /** Queues ERROR as the last message; the caller sends it with `transmit`. */
  fail(error: FramesError): void {
    if (this.#phase === "done" || this.#phase === "failed") return;
    this.#output.close(error.wireFields);
    this.#phase = "failed";
  }

  /** Returns unsettled frames to their sources after the connection broke. */
  returnToSources(): void {
    this.#phase = "failed";
    this.#scheduler?.returnToSources();
  }

  /**
   * Starts the handshake's deadline once the connection is established, and queues PROOF.
   *
   * @param exporter keying material of the TLS channel; `undefined` on plain TCP
   * @throws {FramesError} `plaintext` if there is a key but no TLS channel
   */
  onConnected(now: number, exporter: Uint8Array | undefined): void {
    this.#keepalive.restart(now);
    // PROOF is queued behind preface and HELLO, so all three go in one flight.
    const proof = this.#handshake.createProof(exporter, this.#output.messages);
    if (proof !== undefined) this.#output.messages.push(proof);
  }

  /**
   * Processes bytes from the server.
   *
   * @throws {FramesError} if the connection has failed; the sender cannot be used afterwards
   */
  receive(chunk: Uint8Array, now: number): void {
    this.#now = now;
    this.#keepalive.onReceived(now);
    this.#handshake.onReceived(chunk);
    this.#decoder.receive(chunk);
  }

  /**
   * Checks timeouts. Call it about once a second.
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
    this.#output.send(MessageType.ping, 0, { time: toWireTime(now) });
    this.#options.onWritable();
  }

  /**
   * Packs what can be sent now. A batch of length 0 means that nothing can be sent until
   * `onWritable` is called.
   *
   * @param into buffer of `outgoingBufferBytes` bytes
   */
  transmit(into: Uint8Array, now: number): WriteBatch {
    const out = new WriteBatch(into);
    if (out.packAll(this.#output.messages)) {
      this.#pongs = 0;
      if (this.#phase === "open") this.#pack(out, now);
    }
    if (out.length > 0) this.#keepalive.onSent(now);
    return out;
  }

  /** Returns what happened since the last call. Call it after every other method. */
  takeEvents(): readonly SenderEvent[] {
    return this.#output.takeEvents();
  }

  #pack(out: WriteBatch, now: number): void {
    const { isPaused, canAddSources } = this.#options;
    const isExhausted = this.#scheduler!.pack(out, now, isPaused?.() === true);
    if (!isExhausted || canAddSources?.() === true) return;
    this.#phase = "ending";
    this.#output.send(MessageType.end, 0, { frames: this.#scheduler!.ended });
    if (!out.packAll(this.#output.messages)) this.#options.onWritable();
  }

  // Callbacks of the decoder.

  onControl(message: ControlMessage): void {
    this.#output.trace("<-", `${typeName(message.type)} ${JSON.stringify(message.body)}`);
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
        this.#output.send(MessageType.pong, 0, {
          time: message.body.time,
          clock: toWireTime(this.#now),
        });
        return this.#options.onWritable();
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
        return this.#options.onWritable();
      }
      case MessageType.answer:
        this.#checkPhase(message.type, "open");
        this.#scheduler!.onAnswer(message.source, message.body.answers);
        return this.#options.onWritable();
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
    this.#scheduler = new Scheduler(this.#options, welcome, this.#output);
    this.#output.emit({ type: "welcome", welcome });
    this.#options.onWritable();
  }

  /**
   * Checks that the server supports what the delivery needs.
   *
   * @throws {FramesError} `limit`, `usage` or `other-store`
   */
  #checkGrants(welcome: Welcome): void {
    const { durable, features = [], fresh } = welcome;
    this.#checkSources(welcome);
    if (this.#handshake.hello.durable === true && durable !== true) {
      throw usageError(
        "Cannot use --move: the server cannot flush frames to its disk; leave --move out",
      );
    }
    if (this.#handshake.hello.conflict === "replace" && !features.includes("replace")) {
      throw usageError(
        "Cannot use --on-conflict replace: the server does not support it; choose fail or skip",
      );
    }
    const confirmed = this.#sources.reduce((sum, { progress }) => {
      return sum + progress.settled - progress.refused - progress.conflictsSkipped;
    }, 0);
    if (fresh === true && confirmed > 0) {
      throw new FramesError(
        "other-store",
        `The server's store is empty now, but it had confirmed ${confirmed} frames: check that its disk is mounted`,
      );
    }
  }

  #checkSources({ limits: { sources } }: Welcome): void {
    const { length } = this.#sources;
    if (length <= sources) return;
    const message = `Cannot send ${length} sources at once: the server accepts ${sources}; send fewer at a time`;
    throw new FramesError("limit", message);
  }

  onProof(bytes: Uint8Array): void {
    if (this.#phase !== "handshake") throw unexpectedMessage(MessageType.proof);
    this.#handshake.checkProof(bytes);
  }

  onReceipt(frames: number): void {
    this.#output.trace("<-", `RECEIPT ${frames}`);
    this.#checkPhase(MessageType.receipt, "open", "ending");
    this.#scheduler!.ack(frames, this.#now);
    this.#options.onWritable();
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
    // Otherwise frames refused without a REFUSED would count as delivered.
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
