/** Receives a stream over any number of connections; each one resumes at the last saved cursor. */
import { Reconnector, type ClientKeys } from "./reconnect.ts";
import { FramesError } from "../errors.ts";
import type { FrameDescription, ReceiveTarget, Outcome } from "../frame.ts";
import type { Address } from "../net/address.ts";
import { ReceiveConnection } from "./receive-connection.ts";
import { DelayHistogram } from "../protocol/delay-histogram.ts";
import { noProgress, type SourceProgress, type Undelivered } from "../protocol/progress.ts";
import type { ReceiverLimits } from "../protocol/receive/receiver-events.ts";
import { vanishedError } from "../store/read-errors.ts";
import type { Hello, Welcome } from "../wire/messages.ts";

/** Times are in milliseconds. */
export interface ReceiveSessionOptions {
  readonly timeout: number;
  readonly connectTimeout: number;
  readonly giveUpAfter: number | undefined;
  readonly keys: ClientKeys;
  readonly grants: ReceiverLimits;
  /** Frames after which the session is complete; undefined: at END. */
  readonly first: number | undefined;
  readonly signal: AbortSignal | undefined;
}

export interface ReceiveSessionEvents {
  /** Called before the target is used. An error thrown here ends the session. */
  checkWelcome(welcome: Welcome): void;
  onWelcome(welcome: Welcome): void;
  onWaiting(reason: FramesError, milliseconds: number): void;
  onUndelivered(report: Undelivered): void;
  /** Called about once a second while there is a connection. */
  onTick(): void;
  trace?(direction: "->" | "<-", line: string): void;
}

/** Result of a session that did not fail. */
export interface ReceiveResult {
  /** Whether the server sent END; false if the client stopped first. */
  readonly isComplete: boolean;
  /** Connections after the first. */
  readonly retries: number;
}

/** Limit of remembered frames. A CURSOR comes at least every 256 frames (SPEC section 9). */
const maxRecentFrames = 10_000;

export class ReceiveSession {
  readonly #address: Address;
  readonly #hello: Hello;
  readonly #target: ReceiveTarget;
  readonly #options: ReceiveSessionOptions;
  readonly #events: ReceiveSessionEvents;
  readonly #reconnector: Reconnector;
  readonly #sources = new Map<
    string,
    { -readonly [K in keyof SourceProgress]: SourceProgress[K] }
  >();
  /**
   * Frames and losses received since the last saved cursor, keyed by source, number and name.
   * The server resends them after a reconnect; this map filters the repeats. The value counts
   * the frames ended on the connection at that time. A reconnect sets it to infinity, because
   * cursors of the new connection cover an entry only after it was resent.
   */
  readonly #recent = new Map<string, number>();
  #connection: ReceiveConnection | undefined;
  /** Frames that count towards `first`: before this connection, and up to its last saved cursor. */
  #framesBefore = 0;
  #framesAtCursor = 0;
  #finishedFrames = 0;
  #receivedBytes = 0;
  #isStopping = false;

  /** @param hello without `cursor` and `first`, which are set for each connection */
  constructor(
    address: Address,
    hello: Hello,
    target: ReceiveTarget,
    options: ReceiveSessionOptions,
    events: ReceiveSessionEvents,
  ) {
    this.#address = address;
    this.#hello = hello;
    this.#target = target;
    this.#options = options;
    this.#events = events;
    const { giveUpAfter, keys } = options;
    const onWaiting = events.onWaiting.bind(events);
    this.#reconnector = new Reconnector(address, {
      giveUpAfter,
      keys,
      canStartOffline: false,
      onWaiting,
    });
  }

  /** Progress of each source received so far. */
  get progress(): readonly SourceProgress[] {
    return [...this.#sources.values()];
  }

  /**
   * Receives until the stream is complete or the signal is aborted.
   *
   * @throws {FramesError} if the session failed
   */
  async run(): Promise<ReceiveResult> {
    const { signal } = this.#options;
    const stop = () => this.#stop();
    if (signal?.aborted) throw new FramesError("interrupted");
    signal?.addEventListener("abort", stop);
    try {
      const connect = () => this.#connect();
      const isComplete = await this.#reconnector.run(connect, () => this.#onBroken(), {
        isLocalError: (error) => this.#target.failure === error,
        isLive: this.#hello.follow === true,
      });
      return { isComplete, retries: this.#reconnector.retries };
    } finally {
      signal?.removeEventListener("abort", stop);
    }
  }

  async #connect(): Promise<boolean> {
    const { timeout, connectTimeout, grants, first } = this.#options;
    const remaining = first === undefined ? undefined : first - this.#framesBefore;
    if (remaining === 0) return true;
    const { cursor } = this.#target;
    const hello: Hello = {
      ...this.#hello,
      ...(cursor === undefined || this.#hello.latest === true ? {} : { cursor }),
      ...(remaining === undefined ? {} : { first: remaining }),
    };
    const options = {
      grants,
      timeout,
      connectTimeout: Math.min(connectTimeout, Math.max(1, this.#reconnector.remainingMs)),
      key: this.#reconnector.key,
    };
    const { trace } = this.#events;
    const framesBefore = this.#framesBefore;
    this.#framesAtCursor = framesBefore;
    for (const key of this.#recent.keys()) this.#recent.set(key, Infinity);
    this.#connection = new ReceiveConnection(this.#address, hello, this.#target, options, {
      checkWelcome: (welcome) => this.#events.checkWelcome(welcome),
      onWelcome: (welcome) => {
        this.#reconnector.onWelcome();
        this.#events.onWelcome(welcome);
      },
      onFrameEnded: (...frame) => this.#onEnded(...frame),
      onLost: (source, _, error, ranges) => {
        for (const [first, last] of ranges) {
          this.#onLost({ source, first, last, what: "", error });
        }
      },
      onGone: (source, { sequence, name }) => {
        const error = vanishedError();
        this.#onLost({ source, first: sequence, last: sequence, what: name, error });
      },
      onCursorSaved: (endedFrames) => {
        this.#framesAtCursor = framesBefore + endedFrames;
        for (const [key, endedAt] of this.#recent) {
          if (endedAt <= endedFrames) this.#recent.delete(key);
        }
      },
      onTick: () => this.#tick(),
      ...(trace === undefined ? {} : { trace: (...line) => trace(...line) }),
    });
    return (await this.#connection.run()).isComplete;
  }

  /** Called after each connection that failed. */
  #onBroken(): void {
    this.#updateProgress();
    // With `latest` there are no cursors, so no frame is resent.
    if (this.#hello.latest === true) this.#framesBefore += this.#connection?.counts.frames ?? 0;
    else this.#framesBefore = this.#framesAtCursor;
  }

  #tick(): void {
    this.#events.onTick();
    this.#updateProgress();
    // An idle stream is normal with `follow`, so the connection itself counts as progress.
    if (this.#hello.follow === true) this.#reconnector.onProgress(false);
    if (this.#reconnector.remainingMs > 0 || this.#isStopping) return;
    throw this.#reconnector.giveUpError(new FramesError("timeout", "the server sent no frame"));
  }

  #updateProgress(): void {
    let finishedFrames = 0;
    let receivedBytes = 0;
    for (const source of this.#sources.values()) {
      finishedFrames += source.settled + source.lost;
      receivedBytes += source.bytes;
    }
    if (finishedFrames > this.#finishedFrames || receivedBytes > this.#receivedBytes)
      this.#reconnector.onProgress(true);
    this.#finishedFrames = finishedFrames;
    this.#receivedBytes = receivedBytes;
  }

  #progressOf(name: string): SourceProgress {
    const existing = this.#sources.get(name);
    if (existing !== undefined) return existing;
    const isLive = this.#hello.follow === true;
    const created: SourceProgress = {
      ...noProgress,
      name,
      total: undefined,
      get capturedCount() {
        return this.settled + this.lost;
      },
      ...(isLive ? { delays: new DelayHistogram() } : {}),
    };
    this.#sources.set(name, created);
    return created;
  }

  /** Records a frame or loss; returns false if it repeats one since the last saved cursor. */
  #isNew(key: string): boolean {
    const isNew = !this.#recent.has(key);
    if (!isNew || this.#recent.size < maxRecentFrames) {
      this.#recent.set(key, this.#connection!.counts.frames);
    }
    return isNew;
  }

  #onEnded(source: string, frame: FrameDescription, outcome: Outcome): void {
    const { sequence, name, size } = frame;
    const progress = this.#progressOf(source);
    const isRepeat = outcome === "present" && !this.#target.isPersistent;
    if (isRepeat || !this.#isNew(`${source} ${sequence} ${name}`)) return void progress.retried++;
    progress.settled++;
    if (outcome instanceof FramesError) {
      progress.refused++;
      const range = { source, first: sequence, last: sequence };
      return this.#events.onUndelivered({ ...range, what: name, error: outcome });
    }
    if (outcome === "present") return void progress.present++;
    progress.sent++;
    progress.bytes += size;
    progress.settledBytes += size;
    progress.delays?.add(Date.now() - Number(frame.captured) / 1e6);
  }

  #onLost(report: Undelivered): void {
    const { source, first, last, error } = report;
    const progress = this.#progressOf(source);
    if (!this.#isNew(`${source} lost ${first} ${last}`)) return;
    progress.lost += last - first + 1;
    if (error.code === "dropped") progress.dropped += last - first + 1;
    this.#events.onUndelivered(report);
  }

  #stop(): void {
    this.#isStopping = true;
    this.#reconnector.interrupt();
    this.#connection?.interrupt();
  }
}
