/** What is to be seen of a server. */
import { asFramesError, FramesError } from "../errors.ts";
import type { Catalog } from "../store/journal/catalog.ts";
import type { StoreContents } from "../store/store-contents.ts";
import { GapIndex } from "../store/journal/gap-index.ts";
import { type SourceTotal, SourceTotals } from "../store/journal/source-totals.ts";
import { Converter } from "./picture/converter.ts";
import { NewestFrameCache } from "./picture/newest-frames.ts";
import type { LiveSources } from "./live/live-sources.ts";
import { JpegCache } from "./picture/jpeg-cache.ts";
import { StatusReporter } from "./live/status.ts";

/** The server that is shown. */
export interface ServerInfo {
  readonly version: string;
  readonly liveSources: LiveSources;
  readonly contents: StoreContents;
  /** Peers that are connected. */
  readonly connections: number;
  /** How often frames were refused and connections ended, by the error. */
  readonly refusals: ReadonlyMap<string, number>;
  /** Why no frame could be stored the last time, if that is so. */
  readonly storeError: FramesError | undefined;
  /** The thread that converts frames. */
  createConverterWorker(): Worker;
}

/** Lets others have their turn for a moment: the same process receives frames. */
const pauseMs = 2;

export class HttpContext {
  readonly server: ServerInfo;
  readonly liveSources: LiveSources;
  readonly contents: StoreContents;
  /** When the server began. */
  readonly started = new Date();
  readonly catalog: Catalog;
  readonly gapIndex: GapIndex;
  readonly newestFrames: NewestFrameCache;
  readonly jpegCache: JpegCache;
  readonly status: StatusReporter;
  readonly #totals: SourceTotals;
  #isClosed = false;

  /** @throws {FramesError} `store` if the journal cannot be read */
  constructor(server: ServerInfo) {
    const { liveSources, contents } = server;
    this.server = server;
    this.liveSources = liveSources;
    this.contents = contents;
    this.catalog = contents.openCatalog();
    this.gapIndex = new GapIndex(this.catalog, this.pause);
    this.#totals = new SourceTotals(this.catalog, this.pause);
    contents.setJournalListener(this.#totals);
    this.newestFrames = new NewestFrameCache(contents, liveSources);
    this.jpegCache = new JpegCache(
      this.newestFrames,
      new Converter(server.createConverterWorker),
      liveSources,
    );
    this.status = new StatusReporter(liveSources, this.#totals, contents, () => server.connections);
  }

  readonly pause = async (): Promise<void> => {
    await Bun.sleep(pauseMs);
    this.#checkOpen();
  };

  #checkOpen(): void {
    if (this.#isClosed) throw new FramesError("stopping");
  }

  /**
   * Takes in what came since.
   *
   * @throws {FramesError} `store` if the journal cannot be read, `stopping`
   */
  async refresh(): Promise<void> {
    this.#checkOpen();
    await this.#totals.refresh();
  }

  /** Streams by the last `refresh`, in the order of their names. */
  get streams(): readonly string[] {
    return this.#totals.streams;
  }

  /** Their sources. */
  sourcesOf(stream: string): readonly SourceTotal[] {
    return this.#totals.sources(stream);
  }

  /** Why no frame can be stored now, if that is so. */
  get storeError(): FramesError | undefined {
    try {
      this.contents.checkReady();
      return this.server.storeError;
    } catch (error) {
      return asFramesError(error, "store");
    }
  }

  close(): void {
    this.#isClosed = true;
    this.contents.setJournalListener(undefined);
    this.newestFrames.close();
    this.jpegCache.close();
    this.status.close();
    this.catalog.close();
  }
}
