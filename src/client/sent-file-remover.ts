/** Removes frames at the sender once the server has stored them durably (`--move`). */
import { asFramesError, type FramesError } from "../errors.ts";
import type { Frame, FrameSource } from "../frame.ts";

/** Frames waiting to be removed above which sending pauses. */
const maxPending = 1000;

/** Frames that cannot be removed yet above which sending pauses. */
const maxPostponed = 50_000;

/** Shortest interval at which postponed frames are tried again, in milliseconds. */
const minRetryMs = 250;

/** A delivered frame that was not removed, and why. */
export interface NotRemoved {
  readonly source: string;
  readonly frame: Frame;
  readonly error: FramesError;
}

/** A delivered frame. */
interface SentFrame {
  readonly source: FrameSource;
  readonly frame: Frame;
  readonly crc: number;
}

/** A frame that cannot be removed yet. */
interface PostponedFrame extends SentFrame {
  readonly error: FramesError;
  /** When to try again, by `performance.now()`. */
  readonly dueAt: number;
}

/** Callbacks of a `SentFileRemover`. */
export interface RemoverEvents {
  onNotRemoved(notRemoved: NotRemoved): void;
  /** Called with the path of a copy of a refused frame. */
  onKept(path: string): void;
  /** Called when `isBehind` becomes false again. */
  onReady(): void;
}

export class SentFileRemover {
  readonly #events: RemoverEvents;
  readonly #pending: SentFrame[] = [];
  #postponed: PostponedFrame[] = [];
  #timer: NodeJS.Timeout | undefined;
  #running: Promise<void> | undefined;
  #removedCount = 0;
  #isStopped = false;

  constructor(events: RemoverEvents) {
    this.#events = events;
  }

  /** Frames removed so far. */
  get removed(): number {
    return this.#removedCount;
  }

  /** Whether the sender should pause until `onReady`. */
  get isBehind(): boolean {
    return this.#pending.length >= maxPending || this.#postponed.length >= maxPostponed;
  }

  /** @param crc CRC-32 of the bytes that the server stored */
  add(source: FrameSource, frame: Frame, crc: number): void {
    if (this.#isStopped) return;
    this.#pending.push({ source, frame, crc });
    this.#start();
  }

  /**
   * Keeps a copy of a frame that the server refused because its name is taken.
   *
   * @param crc CRC-32 of the bytes that were refused
   */
  keep(source: FrameSource, frame: Frame, crc: number): void {
    try {
      const copy = source.keepCopy?.(frame, crc);
      if (copy !== undefined) this.#events.onKept(copy);
    } catch (error) {
      this.#reportNotRemoved({ source, frame, crc }, asFramesError(error, "unreadable"));
    }
  }

  #start(): void {
    if (this.#running !== undefined) return;
    // A timer may fire before a frame is due.
    if (this.#pending.length === 0) return this.#awaitPostponed();
    this.#running = this.#removePending();
    // `onNotRemoved` may throw; `finish` rejects with that error.
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
    let next: SentFrame | undefined;
    while ((next = this.#pending.shift()) !== undefined) {
      const postponed = await this.#remove(next);
      if (postponed !== undefined && !this.#isStopped) this.#postponed.push(postponed);
      if (this.#pending.length === maxPending - 1) this.#events.onReady();
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
        if (wasBehind && !this.isBehind) this.#events.onReady();
        this.#start();
      },
      Math.max(minRetryMs, first - performance.now()),
    );
  }

  async #remove(sent: SentFrame): Promise<PostponedFrame | undefined> {
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

  #reportNotRemoved({ source, frame }: SentFrame, error: FramesError): void {
    this.#events.onNotRemoved({ source: source.name, frame, error });
  }
}
