/**
 * The sending end of a conversation (SPEC sections 4 to 8), as a machine without I/O: bytes and
 * times go in, bytes come out. Frames are pulled from their sources when there is room for them,
 * read straight into the outgoing buffer, and forgotten when their receipt is in.
 */
import type { Key } from "../auth/key.ts";
import { errorByNumber, FramesError, heard } from "../errors.ts";
import type { Frame, FrameSource } from "../frame.ts";
import { Decoder, type MessageHandler } from "../wire/decode.ts";
import { encodeControl } from "../wire/encode.ts";
import {
  type ControlBodies,
  type ControlMessage,
  type ControlType,
  type Done,
  type Hello,
  Type,
  typeName,
  unexpected,
  type Welcome,
} from "../wire/messages.ts";
import { ClientGreeting } from "./greeting.ts";
import { Liveness, nanoseconds } from "./liveness.ts";
import type { Outlet, Undelivered } from "./outlet.ts";
import type { SendPolicy } from "./hooks.ts";
import { Schedule } from "./schedule.ts";
import { Transmission } from "./transmission.ts";

/** What the machine tells its host. */
export interface SenderEvents {
  /** Something can be sent that could not before: call `transmit`. */
  wake(): void;
  welcome?(welcome: Welcome): void;
  undelivered?(report: Undelivered): void;
  /** Whether nothing is to be begun for now: whoever says so wakes `transmit` up later. */
  isHeld?(): boolean;
  /** Whether more sources may come: no END is said before that is over. */
  isOpen?(): boolean;
  /** The server has a frame, whose bytes have this CRC-32. */
  delivered?(source: FrameSource, frame: Frame, crc: number): void;
  /** A message goes or came, for those who want to see the conversation. */
  trace?(direction: "->" | "<-", line: string): void;
}

/** PONGs that wait to be sent: whoever sends more PINGs meanwhile has the answers to those. */
const mostPongs = 1000;

type Phase = "greeting" | "open" | "ending" | "done" | "failed";

/** One connection's conversation. */
export class Sender implements MessageHandler {
  readonly #decoder = new Decoder(this);
  readonly #events: SenderEvents;
  readonly #outlets: readonly Outlet[];
  readonly #greeting: ClientGreeting;
  readonly #policy: SendPolicy;
  readonly #liveness: Liveness;
  readonly #controls: Uint8Array[] = [];
  #schedule: Schedule | undefined;
  #phase: Phase = "greeting";
  #welcome: Welcome | undefined;
  #now: number;
  #failed: { error: unknown } | undefined;
  /** PONGs that may not have left yet. */
  #pongs = 0;
  #done: Done | undefined;

  /**
   * @param outlets what is to be sent, with what an earlier connection left of it
   * @param now milliseconds since 1970 by a clock that never jumps, as everywhere here
   * @param key is proved to the server, which must prove that it holds it too
   */
  constructor(
    outlets: readonly Outlet[],
    hello: Hello,
    policy: Pick<SendPolicy, "checksum">,
    timeout: number,
    now: number,
    events: SenderEvents,
    key?: Key,
  ) {
    this.#greeting = new ClientGreeting({ ...hello, features: ["offer", "replace"] }, key);
    this.#events = events;
    this.#now = now;
    this.#policy = { ...policy, skipConflicts: hello.conflict === "skip" };
    this.#liveness = new Liveness(now, timeout);
    this.#outlets = outlets;
    events.trace?.("->", `HELLO ${JSON.stringify(this.#greeting.hello)}`);
    this.#controls.push(...this.#greeting.opening());
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
    return this.#failed;
  }

  /** Whether the server owes no receipt and no answer. */
  get isIdle(): boolean {
    return this.#phase === "open" && this.#schedule!.isIdle;
  }

  /**
   * Another source came, whose outlet is among the outlets from now on.
   *
   * @throws {FramesError} `limit` if the server takes no more
   */
  added(outlet: Outlet): void {
    if (this.#schedule === undefined) return;
    this.#checkSources(this.#welcome!);
    this.#schedule.add(outlet);
    this.#events.wake();
  }

  /** Ends the conversation: `transmit` gives what is still to be said, ERROR last. */
  fail(error: FramesError): void {
    if (this.#phase === "done" || this.#phase === "failed") return;
    this.#say(Type.error, 0, error.reason);
    this.#phase = "failed";
  }

  /** The connection is no more: what is not settled goes back to its outlets. */
  abandon(): void {
    this.#phase = "failed";
    this.#schedule?.abandon();
  }

  /**
   * The connection has come about: deadlines count from here.
   *
   * @param exporter what its TLS channel exports, if it is one
   * @throws {FramesError} `plaintext` if there is a key to prove and no such channel
   */
  connected(now: number, exporter: Uint8Array | undefined): void {
    this.#liveness.restart(now);
    // Preface and HELLO wait in front of it: all three go in one flight.
    const proof = this.#greeting.prove(exporter, this.#controls);
    if (proof !== undefined) this.#controls.push(proof);
  }

  /**
   * Takes bytes from the server.
   *
   * @throws {FramesError} if the conversation has failed; the machine is then of no more use
   */
  receive(chunk: Uint8Array, now: number): void {
    this.#now = now;
    this.#liveness.heard(now);
    this.#greeting.heard(chunk);
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
      this.#phase === "greeting"
        ? "answer of a frames server (WELCOME)"
        : this.#phase === "ending"
          ? "DONE"
          : "receipts";
    if (!this.#liveness.tick(now, awaited, this.#decoder.incomplete)) return;
    this.#say(Type.ping, 0, { time: nanoseconds(now) });
    this.#events.wake();
  }

  /**
   * Packs what may be sent now into `into`, which is `outgoingBuffer` bytes long. Nothing to send is a
   * length of 0; when there is something again, `wake` is called.
   */
  transmit(into: Uint8Array, now: number): Transmission {
    const out = new Transmission(into);
    if (out.packAll(this.#controls)) {
      this.#pongs = 0;
      if (this.#phase === "open") this.#pack(out, now);
    }
    if (out.length > 0) this.#liveness.sent(now);
    return out;
  }

  #pack(out: Transmission, now: number): void {
    if (!this.#schedule!.pack(out, now)) return;
    this.#phase = "ending";
    this.#say(Type.end, 0, { frames: this.#schedule!.ended });
    if (!out.packAll(this.#controls)) this.#events.wake();
  }

  /** @param line what is shown of it, if not its JSON */
  #say<T extends ControlType>(
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

  #declare(outlet: Outlet, stream: string): void {
    if (this.#phase === "failed") return;
    const name = stream === "" ? outlet.source.name : `${stream}/${outlet.source.name}`;
    this.#events.trace?.("->", `SOURCE ${outlet.id} ${name}`);
    this.#controls.push(outlet.declaration(stream));
  }

  // What the decoder tells.

  control(message: ControlMessage): void {
    this.#events.trace?.("<-", `${typeName(message.type)} ${JSON.stringify(message.body)}`);
    switch (message.type) {
      case Type.error: {
        const { error, message: said, source, sequence } = message.body;
        const code = errorByNumber(error, "end");
        if (code === "damaged") this.#schedule?.blame(source, sequence);
        throw new FramesError(code, `The server says: ${heard(said)}`);
      }
      case Type.welcome:
        return this.#greeted(message.body);
      case Type.ping:
        this.#expect(message.type, "open", "ending");
        if (++this.#pongs > mostPongs) return;
        this.#say(Type.pong, 0, { time: message.body.time, clock: nanoseconds(this.#now) });
        return this.#events.wake();
      case Type.pong:
        return this.#expect(message.type, "open", "ending");
      case Type.refused: {
        this.#expect(message.type, "open", "ending");
        const { source, body } = message;
        const error = new FramesError(errorByNumber(body.error, "refusal"), heard(body.message));
        this.#schedule!.refused(source, body, error);
        return this.#events.wake();
      }
      case Type.answer:
        this.#expect(message.type, "open");
        this.#schedule!.answer(message.source, message.body.answers);
        return this.#events.wake();
      case Type.done:
        this.#expect(message.type, "ending");
        return this.#finish(message.body);
      default:
        throw unexpected(message.type);
    }
  }

  #expect(type: number, ...phases: Phase[]): void {
    if (!phases.includes(this.#phase)) throw unexpected(type);
  }

  #greeted(welcome: Welcome): void {
    this.#expect(Type.welcome, "greeting");
    this.#greeting.checkWelcome();
    this.#checkGrants(welcome);
    this.#phase = "open";
    this.#welcome = welcome;
    this.#liveness.greeted();
    const { trace, undelivered, delivered, wake } = this.#events;
    this.#schedule = new Schedule(this.#outlets, welcome, this.#policy, {
      controls: this.#controls,
      say: (...message) => this.#say(...message),
      declare: (outlet, stream) => this.#declare(outlet, stream),
      sent: (source, { sequence, name, size }) =>
        trace?.("->", `FRAME ${source} ${sequence} ${name} ${size} bytes`),
      ...(delivered === undefined ? {} : { delivered }),
      undelivered: (report) => undelivered?.(report),
      isHeld: () => this.#events.isHeld?.() === true,
      isOpen: () => this.#events.isOpen?.() === true,
      failed: (error) => (this.#failed ??= { error }),
      wake,
    });
    this.#events.welcome?.(welcome);
    wake();
  }

  /** Whether this server can do what was asked for. */
  #checkGrants(welcome: Welcome): void {
    const { durable, features = [], fresh } = welcome;
    this.#checkSources(welcome);
    if (this.#greeting.hello.durable === true && durable !== true) {
      throw new FramesError(
        "usage",
        "Cannot send with --move: this server does not flush what it receives to its disk",
      );
    }
    if (this.#greeting.hello.conflict === "replace" && !features.includes("replace")) {
      throw new FramesError(
        "usage",
        "Cannot send with --on-conflict replace: this server replaces nothing",
      );
    }
    const confirmed = this.#outlets.reduce((sum, { progress }) => {
      return sum + progress.settled - progress.refused - progress.skipped;
    }, 0);
    if (fresh === true && confirmed > 0) {
      throw new FramesError(
        "other-store",
        `The server has an empty store now, but it had confirmed ${confirmed} frames: is its disk mounted?`,
      );
    }
  }

  #checkSources({ limits: { sources } }: Welcome): void {
    const { length } = this.#outlets;
    if (length <= sources) return;
    const message = `Cannot send ${length} sources at once: the server takes ${sources}`;
    throw new FramesError("limit", message);
  }

  proof(bytes: Uint8Array): void {
    if (this.#phase !== "greeting") throw unexpected(Type.proof);
    this.#greeting.check(bytes);
  }

  receipt(frames: number): void {
    this.#events.trace?.("<-", `RECEIPT ${frames}`);
    this.#expect(Type.receipt, "open", "ending");
    this.#schedule!.settle(frames, this.#now);
    this.#events.wake();
  }

  #finish(done: Done): void {
    const settled = done.stored + done.present + done.refused + done.aborted;
    const { ended, refusals, aborts } = this.#schedule!;
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
    this.#schedule!.settle(ended, this.#now);
    this.#done = done;
    this.#phase = "done";
  }
}
