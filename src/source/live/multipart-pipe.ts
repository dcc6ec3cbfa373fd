/** Distributes the frames of a pipe with headers to live sources, which it creates by their names. */
import { toNanoseconds } from "../../common/clock.ts";
import { FramesError } from "../../errors.ts";
import { FrameFeed } from "./frame-feed.ts";
import type { Capture } from "./iterable-source.ts";
import type { LiveSource } from "./live-source.ts";
import { PartParser } from "./part-parser.ts";

/** A frame that no source can take, because the name of its source is missing or invalid. */
export interface RefusedPart {
  /** Empty if its header has none. */
  readonly source: string;
  readonly what: string;
  readonly error: FramesError;
}

export interface MultipartPipeOptions {
  /** Largest allowed frame, in bytes. */
  readonly maxFrameBytes: number;
  /** Source of the frames that name none. */
  readonly defaultSource: string | undefined;
  /** Returns the wall clock time, in milliseconds since 1970. */
  readonly clock: () => number;
  /**
   * Creates the source of a name.
   *
   * @throws {FramesError} if the name is invalid
   */
  readonly createSource: (name: string, frames: AsyncIterable<Capture>) => LiveSource;
}

export interface MultipartPipeEvents {
  /** Called for each new source, before its first frame is taken. */
  onSource(source: LiveSource): void;
  onRefused(part: RefusedPart): void;
}

/** A source waits for its frame while its queue is full, and the whole pipe with it. */
export class MultipartPipe {
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  readonly #options: MultipartPipeOptions;
  readonly #parser: PartParser;
  #isStopped = false;
  readonly #feeds = new Map<string, FrameFeed<Capture>>();
  /** Sources that have frames in the spool. */
  readonly spooled: readonly LiveSource[];

  /** @param spooledNames names of the sources that have frames in the spool */
  constructor(
    stream: ReadableStream<Uint8Array>,
    spooledNames: readonly string[],
    options: MultipartPipeOptions,
  ) {
    this.#reader = stream.getReader();
    this.#options = options;
    this.#parser = new PartParser(options.maxFrameBytes);
    this.spooled = spooledNames.map((name) => this.#createSource(name));
  }

  /**
   * Reads the pipe until it ends or `stop` is called, and ends its sources.
   *
   * @throws {FramesError} `damaged` if it is not in the format; all frames before are delivered
   */
  async run(events: MultipartPipeEvents): Promise<void> {
    try {
      for (;;) {
        const { done, value } = await this.#reader.read();
        if (done) break;
        await this.#distribute(value, events);
      }
      const last = this.#parser.end();
      if (last !== undefined) await this.#deliver(last.source, last.capture, events);
    } finally {
      for (const feed of this.#feeds.values()) feed.end();
    }
  }

  /** Whether the line that ends the pipe has come. Without it, the writer may have been killed. */
  get hasEnded(): boolean {
    return this.#parser.hasEnded;
  }

  async #distribute(chunk: Uint8Array, events: MultipartPipeEvents): Promise<void> {
    for (const { source, capture } of this.#parser.push(chunk)) {
      await this.#deliver(source, capture, events);
    }
  }

  async #deliver(
    name: string | undefined,
    capture: Capture,
    events: MultipartPipeEvents,
  ): Promise<void> {
    if (this.#isStopped) return;
    // Frames without a time are captured when they arrive, not when the queue takes them.
    const now = toNanoseconds(this.#options.clock());
    const item = "error" in capture ? capture : { captured: now, ...capture };
    const source = name ?? this.#options.defaultSource;
    try {
      await this.#feedOf(source, events).push(item);
    } catch (error) {
      if (!(error instanceof FramesError)) throw error;
      events.onRefused({ source: source ?? "", what: capture.name ?? "a frame", error });
    }
  }

  /** @throws {FramesError} if the source cannot have this name */
  #feedOf(name: string | undefined, events: MultipartPipeEvents): FrameFeed<Capture> {
    if (name === undefined) {
      throw new FramesError("bad-name", "it names no source: add X-Source, or --source NAME");
    }
    const known = this.#feeds.get(name);
    if (known !== undefined) return known;
    events.onSource(this.#createSource(name));
    return this.#feeds.get(name)!;
  }

  #createSource(name: string): LiveSource {
    const feed = new FrameFeed<Capture>();
    const source = this.#options.createSource(name, feed);
    this.#feeds.set(name, feed);
    return source;
  }

  /** Stops reading, also in the middle of a frame. */
  stop(): void {
    this.#isStopped = true;
    // The reader rejects if the stream has failed already.
    void this.#reader.cancel().catch(() => {});
  }
}
