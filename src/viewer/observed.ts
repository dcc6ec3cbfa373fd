/** A store that is looked at while frames are put into it, whoever sends them. */
import { FramesError } from "../errors.ts";
import type {
  FrameDescription,
  FrameOrigin,
  FrameStore,
  FrameWriter,
  OfferedFrame,
  Outcome,
  SourceStore,
  Standing,
} from "../frame.ts";
import type { Live, LiveSource } from "./live.ts";

export class ObservedStore implements FrameStore {
  readonly #store: FrameStore;
  readonly #live: Live;
  readonly receiptsEvery?: number;
  readonly refresh?: () => Promise<void>;

  constructor(store: FrameStore, live: Live) {
    this.#store = store;
    this.#live = live;
    if (store.refresh !== undefined) this.refresh = () => store.refresh!();
    if (store.receiptsEvery !== undefined) this.receiptsEvery = store.receiptsEvery;
  }

  get place(): string {
    return this.#store.place;
  }

  get isDurable(): boolean {
    return this.#store.isDurable;
  }

  isFresh(stream: string): boolean {
    return this.#store.isFresh(stream);
  }

  check(stream: string, source: string): void {
    this.#store.check(stream, source);
  }

  open(origin: FrameOrigin): SourceStore {
    return new ObservedSource(this.#store.open(origin), this.#live.source(origin));
  }

  flush(): void | Promise<void> {
    return this.#store.flush();
  }

  room(): Promise<void> | undefined {
    return this.#store.room?.();
  }
}

class ObservedSource implements SourceStore {
  readonly #store: SourceStore;
  readonly #seen: LiveSource;

  constructor(store: SourceStore, seen: LiveSource) {
    this.#store = store;
    this.#seen = seen;
  }

  begin(description: FrameDescription): FrameWriter {
    return new ObservedWriter(this.#store.begin(description), description, this.#seen);
  }

  compare(offered: readonly OfferedFrame[]): Standing[] {
    const standings = this.#store.compare(offered);
    // Those that are there will not come, and are not missing.
    for (const [index, { sequence }] of offered.entries()) {
      const standing = standings[index];
      if (standing === "stored" || standing === "moved") this.#seen.passed(sequence, sequence);
    }
    return standings;
  }

  lost(first: number, last: number, error: FramesError): void {
    this.#store.lost(first, last, error);
    this.#seen.passed(first, last, error);
  }

  ending(): void {
    this.#store.ending?.();
  }
}

class ObservedWriter implements FrameWriter {
  readonly #writer: FrameWriter;
  readonly #description: FrameDescription;
  readonly #seen: LiveSource;

  constructor(writer: FrameWriter, description: FrameDescription, seen: LiveSource) {
    this.#writer = writer;
    this.#description = description;
    this.#seen = seen;
  }

  write(bytes: Uint8Array): void {
    this.#writer.write(bytes);
  }

  finish(crc32: number): Outcome | Promise<Outcome> {
    const outcome = this.#writer.finish(crc32);
    if (!(outcome instanceof Promise)) {
      this.#ended(outcome, crc32);
      return outcome;
    }
    return outcome.then((settled) => {
      this.#ended(settled, crc32);
      return settled;
    });
  }

  #ended(outcome: Outcome, crc32: number): void {
    if (outcome === "stored") this.#seen.stored(this.#description, crc32);
    else if (outcome === "present") {
      this.#seen.passed(this.#description.sequence, this.#description.sequence);
    }
  }

  discard(): void {
    this.#writer.discard();
  }
}
