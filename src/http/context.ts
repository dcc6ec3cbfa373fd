/** State shared by all HTTP routes: live sources, stored frames, caches and status. */
import { asFramesError, FramesError } from "../errors.ts";
import type { WorkQueue } from "../common/work-queue.ts";
import type { RunSlice } from "../frame.ts";
import { JournalReader } from "../store/journal/journal-reader.ts";
import type { StoreContents } from "../store/store-contents.ts";
import { GapIndex } from "../store/journal/gap-index.ts";
import { type SourceTotal, SourceTotals } from "../store/journal/source-totals.ts";
import { Converter } from "./picture/converter.ts";
import { NewestFrameCache } from "./picture/newest-frames.ts";
import type { LiveSources } from "./live/live-sources.ts";
import { JpegCache } from "./picture/jpeg-cache.ts";
import { VideoDecoders } from "./picture/video-decoder.ts";
import { StatusReporter } from "./live/status.ts";

/** What the HTTP server needs to know of the server it belongs to. */
export interface ServerInfo {
  /** Number of connected peers. */
  readonly connections: number;
  /** Refused frames and ended connections, counted by error code. */
  readonly refusals: ReadonlyMap<string, number>;
  /** Runs the costly work of all peers. */
  readonly workQueue: WorkQueue<unknown>;
}

export interface HttpContextOptions {
  readonly server: ServerInfo;
  readonly liveSources: LiveSources;
  readonly contents: StoreContents;
  /** Returns the error that currently prevents storing frames, if there is one. */
  readonly storeError: () => FramesError | undefined;
  /** Starts the worker that converts frames to JPEG. */
  readonly createConverterWorker: () => Worker;
}

export class HttpContext {
  readonly server: ServerInfo;
  readonly liveSources: LiveSources;
  readonly contents: StoreContents;
  /** Start time of the HTTP server. */
  readonly started = new Date();
  readonly reader: JournalReader;
  readonly gapIndex: GapIndex;
  readonly newestFrames: NewestFrameCache;
  readonly jpegCache: JpegCache;
  readonly videoDecoders: VideoDecoders;
  readonly status: StatusReporter;
  readonly #storeError: () => FramesError | undefined;
  readonly #totals: SourceTotals;
  #isClosed = false;

  /** @throws {FramesError} `store` if the journal cannot be read */
  constructor(options: HttpContextOptions) {
    const { server, liveSources, contents } = options;
    this.server = server;
    this.#storeError = options.storeError;
    this.liveSources = liveSources;
    this.contents = contents;
    this.reader = new JournalReader(contents.journalPath);
    // All clients share these, so they have a turn of their own.
    const run = this.runnerFor(this);
    this.gapIndex = new GapIndex(this.reader, run);
    this.#totals = new SourceTotals(this.reader, run);
    contents.setJournalListener(this.#totals.onFrameRemoved);
    this.newestFrames = new NewestFrameCache(contents, liveSources);
    this.jpegCache = new JpegCache(
      this.newestFrames,
      new Converter(options.createConverterWorker),
      liveSources,
    );
    this.videoDecoders = new VideoDecoders(this);
    this.status = new StatusReporter(liveSources, this.#totals, contents, () => server.connections);
  }

  /**
   * Returns a function that runs the costly work of one client until the server stops, or until
   * `signal` tells that the client left.
   */
  runnerFor(client: unknown, signal?: AbortSignal): RunSlice {
    return (slice) =>
      this.server.workQueue.run(client, () => {
        if (this.#isClosed || signal?.aborted === true) throw new FramesError("stopping");
        return slice();
      });
  }

  /**
   * Updates the totals with rows that were added to the journal.
   *
   * @throws {FramesError} `store` if the journal cannot be read, `stopping`
   */
  refresh(): Promise<void> {
    return this.#totals.refresh();
  }

  /** Stream names as of the last `refresh`, sorted. */
  get streams(): readonly string[] {
    return this.#totals.streams;
  }

  /** Sources of a stream as of the last `refresh`. */
  sourcesOf(stream: string): readonly SourceTotal[] {
    return this.#totals.sources(stream);
  }

  /** The error that prevents storing frames now; undefined if the store is ready. */
  get storeError(): FramesError | undefined {
    try {
      this.contents.checkReady();
      return this.#storeError();
    } catch (error) {
      return asFramesError(error, "store", `Cannot read the store ${this.contents.location}`);
    }
  }

  close(): void {
    this.#isClosed = true;
    this.contents.setJournalListener(undefined);
    this.newestFrames.close();
    this.jpegCache.close();
    this.videoDecoders.close();
    this.status.close();
    this.reader.close();
  }
}
