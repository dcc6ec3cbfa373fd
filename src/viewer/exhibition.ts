/** What is to be seen of a server. */
import { asFramesError, FramesError } from "../errors.ts";
import type { Catalog } from "../store/catalog.ts";
import type { KeptFrames } from "../store/kept.ts";
import { Missing } from "../store/missing.ts";
import { type SourceSum, Sums } from "../store/sums.ts";
import { Converter } from "./converter.ts";
import { Copies } from "./copies.ts";
import type { Live } from "./live.ts";
import { Pictures } from "./pictures.ts";
import { States } from "./states.ts";

/** The server that is shown. */
export interface Showing {
  readonly version: string;
  readonly live: Live;
  readonly kept: KeptFrames;
  /** Peers that are connected. */
  readonly connections: number;
  /** How often frames were refused and connections ended, by the error. */
  readonly refusals: ReadonlyMap<string, number>;
  /** Why no frame could be stored the last time, if that is so. */
  readonly failure: FramesError | undefined;
  /** The thread that converts frames. */
  makeConverter(): Worker;
}

/** Lets others have their turn for a moment: the same process receives frames. */
const pauseFor = 2;

export class Exhibition {
  readonly showing: Showing;
  readonly live: Live;
  readonly kept: KeptFrames;
  /** When the server began. */
  readonly started = new Date();
  readonly catalog: Catalog;
  readonly missing: Missing;
  readonly copies: Copies;
  readonly pictures: Pictures;
  readonly states: States;
  readonly #sums: Sums;
  #isOver = false;

  /** @throws {FramesError} `store` if the journal cannot be read */
  constructor(showing: Showing) {
    const { live, kept } = showing;
    this.showing = showing;
    this.live = live;
    this.kept = kept;
    this.catalog = kept.openCatalog();
    this.missing = new Missing(this.catalog, this.pause);
    this.#sums = new Sums(this.catalog, this.pause);
    kept.follow(this.#sums);
    this.copies = new Copies(kept, live);
    this.pictures = new Pictures(this.copies, new Converter(showing.makeConverter), live);
    this.states = new States(live, this.#sums, kept, () => showing.connections);
  }

  readonly pause = async (): Promise<void> => {
    await Bun.sleep(pauseFor);
    this.#checkOpen();
  };

  #checkOpen(): void {
    if (this.#isOver) throw new FramesError("stopping");
  }

  /**
   * Takes in what came since.
   *
   * @throws {FramesError} `store` if the journal cannot be read, `stopping`
   */
  async refresh(): Promise<void> {
    this.#checkOpen();
    await this.#sums.refresh();
  }

  /** Streams by the last `refresh`, in the order of their names. */
  get streams(): readonly string[] {
    return this.#sums.streams;
  }

  /** Their sources. */
  sourcesOf(stream: string): readonly SourceSum[] {
    return this.#sums.sources(stream);
  }

  /** Why no frame can be stored now, if that is so. */
  get failure(): FramesError | undefined {
    try {
      this.kept.checkReady();
      return this.showing.failure;
    } catch (error) {
      return asFramesError(error, "store");
    }
  }

  close(): void {
    this.#isOver = true;
    this.kept.follow(undefined);
    this.copies.close();
    this.pictures.close();
    this.states.close();
    this.catalog.close();
  }
}
