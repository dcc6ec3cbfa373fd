/** Removes frames at the sender once the server has stored them durably (`--move`). */
import { asFramesError, type FramesError } from "../errors.ts";
import type { ComparedFrame } from "../protocol/send/sender-event.ts";
import type { RemovalEvent } from "./send-event.ts";

/** Frames waiting to be removed above which sending pauses. */
const maxPending = 1000;

/** Frames that cannot be removed yet above which sending pauses. */
const maxPostponed = 50_000;

/** Shortest interval at which postponed frames are tried again, in milliseconds. */
const minRetryMs = 250;

/** A frame that cannot be removed yet. */
interface PostponedFrame extends ComparedFrame {
  readonly error: FramesError;
  /** When to try again, by `performance.now()`. */
  readonly dueAt: number;
}

export class SentFileRemover {
  readonly #onEvent: (event: RemovalEvent) => void;
  readonly #onReady: () => void;
  readonly #pending: ComparedFrame[] = [];
  #postponed: PostponedFrame[] = [];
  #timer: NodeJS.Timeout | undefined;
  #running: Promise<void> | undefined;
  #removedCount = 0;
  #notRemovedCount = 0;
  #isStopped = false;

  /** @param onReady called when `isBehind` becomes false again */
  constructor(onEvent: (event: RemovalEvent) => void, onReady: () => void) {
    this.#onEvent = onEvent;
    this.#onReady = onReady;
  }

  /** Frames removed so far. */
  get removed(): number {
    return this.#removedCount;
  }

  /** Frames that were reported as not removed. */
  get notRemoved(): number {
    return this.#notRemovedCount;
  }

  /** Whether the sender should pause until `onReady`. */
  get isBehind(): boolean {
    return this.#pending.length >= maxPending || this.#postponed.length >= maxPostponed;
  }

  /** Removes a frame that the server has stored. */
  add(sent: ComparedFrame): void {
    if (this.#isStopped) return;
    this.#pending.push(sent);
    this.#start();
  }

  /** Keeps a copy of a frame that the server refused because its name is taken. */
  keep(sent: ComparedFrame): void {
    const { source, frame, crc } = sent;
    try {
      const path = source.keepCopy?.(frame, crc);
      if (path !== undefined) this.#onEvent({ type: "kept", path });
    } catch (error) {
      this.#reportNotRemoved(sent, asFramesError(error, "unreadable"));
    }
  }

  #start(): void {
    if (this.#running !== undefined) return;
    // A timer may fire before a frame is due.
    if (this.#pending.length === 0) return this.#awaitPostponed();
    this.#running = this.#removePending();
    // `onEvent` may throw; `finish` rejects with that error.
    this.#running.catch(() => {});
  }

  /** Discards the queue: the frames stay here, and a later run removes them. */
  stop(): void {
    this.#pending.length = 0;
    this.#postponed = [];
    clearTimeout(this.#timer);
    this.#isStopped = true;
  }

  /** Resolves when every frame was removed or reported. Tries each postponed frame once more. */
  async finish(): Promise<void> {
    await this.#running;
    clearTimeout(this.#timer);
    const postponed = this.#postponed;
    this.#postponed = [];
    for (const { dueAt, ...sent } of postponed) {
      await Bun.sleep(Math.max(0, dueAt - performance.now()));
      if (this.#isStopped) return;
      const again = await this.#remove(sent);
      if (again !== undefined) this.#reportNotRemoved(sent, again.error);
    }
  }

  async #removePending(): Promise<void> {
    let next: ComparedFrame | undefined;
    while ((next = this.#pending.shift()) !== undefined) {
      const postponed = await this.#remove(next);
      if (postponed !== undefined && !this.#isStopped) this.#postponed.push(postponed);
      if (this.#pending.length === maxPending - 1) this.#onReady();
    }
    this.#running = undefined;
    this.#awaitPostponed();
  }

  /** Puts postponed frames back into the queue when they are due. */
  #awaitPostponed(): void {
    clearTimeout(this.#timer);
    if (this.#postponed.length === 0) return;
    const first = this.#postponed.reduce((min, { dueAt }) => Math.min(min, dueAt), Infinity);
    this.#timer = setTimeout(
      () => {
        const now = performance.now();
        const wasBehind = this.isBehind;
        for (const sent of this.#postponed) if (sent.dueAt <= now) this.#pending.push(sent);
        this.#postponed = this.#postponed.filter(({ dueAt }) => dueAt > now);
        if (wasBehind && !this.isBehind) this.#onReady();
        this.#start();
      },
      Math.max(minRetryMs, first - performance.now()),
    );
  }

  async #remove(sent: ComparedFrame): Promise<PostponedFrame | undefined> {
    const { source, frame, crc } = sent;
    try {
      const result = await source.remove!(frame, crc);
      if (typeof result === "object") {
        const { delayMs, error } = result;
        return { source, frame, crc, error, dueAt: performance.now() + delayMs };
      }
      if (result === "removed") this.#removedCount++;
    } catch (error) {
      this.#reportNotRemoved(sent, asFramesError(error, "unreadable"));
    }
    return undefined;
  }

  #reportNotRemoved({ source, frame }: ComparedFrame, error: FramesError): void {
    this.#notRemovedCount++;
    this.#onEvent({ type: "not-removed", notRemoved: { source: source.name, frame, error } });
  }
}
