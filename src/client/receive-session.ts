/** Receives a stream over any number of connections; each one resumes at the last saved cursor. */
import type { CallbackSink } from "./callback-sink.ts";
import type { ClientKeys } from "./client-keys.ts";
import { Reconnector } from "./reconnect.ts";
import { FramesError, truncateMessage, usageError } from "../errors.ts";
import type { FrameDescription, ReceiveTarget, Outcome } from "../frame.ts";
import { ReceiveConnection } from "./receive-connection.ts";
import type { ReceiveEvent, ReceiveOptions } from "./receive-options.ts";
import type { Transfer } from "./transfer.ts";
import { DelayHistogram } from "../protocol/delay-histogram.ts";
import { noProgress, type SourceProgress, type Undelivered } from "../protocol/progress.ts";
import type { ReceiverEvent } from "../protocol/receive/receiver-events.ts";
import { vanishedError } from "../store/read-errors.ts";
import type { Hello, Welcome } from "../wire/messages.ts";

export interface ReceiveSessionOptions {
  readonly transfer: Transfer<ReceiveEvent>;
  readonly options: ReceiveOptions;
  /** Without `cursor` and `first`, which are set for each connection. */
  readonly hello: Hello & Required<Pick<Hello, "limits" | "window">>;
  readonly target: ReceiveTarget & Pick<CallbackSink, "checkSources">;
  readonly keys: ClientKeys;
}

/** Result of a session that did not fail. */
export interface ReceiveResult {
  /** Whether the server sent END; false if the client stopped first. */
  readonly isComplete: boolean;
  /** Connections after the first. */
  readonly retries: number;
  /** Location of the store, as the server names it. */
  readonly store: string;
}

/** Limit of remembered frames. A CURSOR comes at least every 256 frames (SPEC section 9). */
const maxRecentFrames = 10_000;

export class ReceiveSession {
  readonly #transfer: Transfer<ReceiveEvent>;
  readonly #options: ReceiveOptions;
  readonly #hello: ReceiveSessionOptions["hello"];
  readonly #target: ReceiveSessionOptions["target"];
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
  #isStopping = false;
  #store = "";

  constructor({ transfer, options, hello, target, keys }: ReceiveSessionOptions) {
    this.#transfer = transfer;
    this.#options = options;
    this.#hello = hello;
    this.#target = target;
    this.#reconnector = new Reconnector(transfer, keys);
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
      return { isComplete, retries: this.#reconnector.retries, store: this.#store };
    } finally {
      signal?.removeEventListener("abort", stop);
    }
  }

  async #connect(): Promise<boolean> {
    const { first, onMessage } = this.#options;
    const remaining = first === undefined ? undefined : first - this.#framesBefore;
    if (remaining === 0) return true;
    const { cursor } = this.#target;
    const { limits, window } = this.#hello;
    const framesBefore = this.#framesBefore;
    this.#framesAtCursor = framesBefore;
    for (const key of this.#recent.keys()) this.#recent.set(key, Infinity);
    this.#connection = new ReceiveConnection({
      ...this.#reconnector.connectionOptions,
      hello: {
        ...this.#hello,
        ...(cursor === undefined || this.#hello.latest === true ? {} : { cursor }),
        ...(remaining === undefined ? {} : { first: remaining }),
      },
      target: this.#target,
      grants: { window, limits: { ...limits, sources: 65_535, unfinished: 16 } },
      onEvent: (event) => this.#onReceiverEvent(event),
      onTick: () => this.#tick(),
      onCursorSaved: (endedFrames) => {
        this.#framesAtCursor = framesBefore + endedFrames;
        for (const [key, endedAt] of this.#recent) {
          if (endedAt <= endedFrames) this.#recent.delete(key);
        }
      },
      trace: onMessage,
    });
    return (await this.#connection.run()).isComplete;
  }

  #onReceiverEvent(event: ReceiverEvent): void {
    switch (event.type) {
      case "welcome":
        return this.#onWelcome(event.welcome);
      case "frame":
        return this.#onEnded(event.source, event.frame, event.outcome);
      case "lost":
        for (const [first, last] of event.ranges) {
          this.#onLost({ source: event.source, first, last, what: "", error: event.error });
        }
        return;
      case "gone": {
        const { source, sequence, name } = event;
        const error = vanishedError();
        this.#onLost({ source, first: sequence, last: sequence, what: name, error });
      }
    }
  }

  #onWelcome(welcome: Welcome): void {
    const { peer } = this.#transfer;
    this.#checkWelcome(welcome, peer);
    this.#store = truncateMessage(welcome.store ?? "");
    const location = `${welcome.store ?? "a store"} on ${peer}`;
    const hadCursor = this.#target.cursor !== undefined && this.#hello.latest !== true;
    this.#target.onConnected(welcome.identity, location, welcome.fresh !== true);
    if (hadCursor && welcome.resumed === false && !this.#target.isPersistent) {
      throw new FramesError(
        "other-store",
        `${peer} cannot resume this stream: its journal has another order, and frames would arrive twice; receive into a directory`,
      );
    }
    this.#reconnector.onWelcome();
    this.#transfer.emit({ type: "connected", address: peer, store: this.#store });
    this.#emitProgress();
  }

  /** @throws {FramesError} `usage` or `missing` if the server cannot send what is wanted */
  #checkWelcome(welcome: Welcome, peer: string): void {
    const { stream, follow, sources, until } = this.#hello;
    if (until !== undefined && welcome.features?.includes("until") !== true) {
      throw usageError(
        "Cannot use --until: the server does not support it; update it, or leave --until out",
      );
    }
    if (welcome.fresh === true && follow !== true && this.#target.cursor === undefined) {
      const what = [stream, ...(sources === undefined ? [] : [sources.join(" and ")])].join("/");
      throw new FramesError(
        "missing",
        `Cannot receive ${what}: ${peer} has no frames of it; on the server run frames ls to list its streams`,
      );
    }
    if (this.#options.first !== 1) this.#target.checkSources(welcome.sources ?? []);
  }

  #emitProgress(): void {
    this.#transfer.emitProgress(() => this.progress);
  }

  /** Called after each connection that failed. */
  #onBroken(): void {
    this.#reconnector.updateProgress(this.progress, false);
    // With `latest` there are no cursors, so no frame is resent.
    if (this.#hello.latest === true) this.#framesBefore += this.#connection?.counts.frames ?? 0;
    else this.#framesBefore = this.#framesAtCursor;
  }

  #tick(): void {
    this.#emitProgress();
    // An idle stream is normal with `follow`, so the connection itself counts as progress.
    this.#reconnector.updateProgress(this.progress, this.#hello.follow === true);
    if (!this.#isStopping) this.#reconnector.checkProgress("the server sent no frame");
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
      const report = { ...range, what: name, error: outcome };
      return this.#transfer.emit({ type: "undelivered", report });
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
    this.#transfer.emit({ type: "undelivered", report });
  }

  #stop(): void {
    this.#isStopping = true;
    this.#reconnector.interrupt();
    this.#connection?.interrupt();
  }
}
