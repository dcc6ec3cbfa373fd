/** Wraps a store and records every stored frame in `LiveSources`. */
import { FramesError } from "../../errors.ts";
import type {
  FrameDescription,
  SourceInfo,
  FrameStore,
  FrameWriter,
  OfferedFrame,
  Outcome,
  RunSlice,
  SourceStore,
  OfferStatus,
} from "../../frame.ts";
import type { LiveSources, SourceRecorder } from "./live-sources.ts";

export class InstrumentedStore implements FrameStore {
  readonly #store: FrameStore;
  readonly #liveSources: LiveSources;
  readonly receiptIntervalMs: number | undefined;
  readonly refresh: FrameStore["refresh"];
  readonly checkSession: FrameStore["checkSession"];

  constructor(store: FrameStore, liveSources: LiveSources) {
    this.#store = store;
    this.#liveSources = liveSources;
    this.receiptIntervalMs = store.receiptIntervalMs;
    this.refresh = store.refresh?.bind(store);
    this.checkSession = store.checkSession?.bind(store);
  }

  get location(): string {
    return this.#store.location;
  }

  get isDurable(): boolean {
    return this.#store.isDurable;
  }

  isStreamEmpty(stream: string): boolean {
    return this.#store.isStreamEmpty(stream);
  }

  checkNames(stream: string, source: string): void {
    this.#store.checkNames(stream, source);
  }

  open(info: SourceInfo): SourceStore {
    return new InstrumentedSource(this.#store.open(info), this.#liveSources.recorder(info));
  }

  flush(): void | Promise<void> {
    return this.#store.flush();
  }

  whenReady(): Promise<void> | undefined {
    return this.#store.whenReady?.();
  }
}

class InstrumentedSource implements SourceStore {
  readonly #store: SourceStore;
  readonly #recorder: SourceRecorder;

  constructor(store: SourceStore, recorder: SourceRecorder) {
    this.#store = store;
    this.#recorder = recorder;
  }

  begin(description: FrameDescription): FrameWriter {
    return new InstrumentedWriter(this.#store.begin(description), description, this.#recorder);
  }

  compare(offered: readonly OfferedFrame[]): OfferStatus[] {
    const statuses = this.#store.compare(offered);
    // The sender does not send these frames, so they must not count as missing.
    for (const [index, { sequence }] of offered.entries()) {
      const status = statuses[index];
      if (status === "stored" || status === "removed")
        this.#recorder.recordUnsent(sequence, sequence);
    }
    return statuses;
  }

  async readStored(offered: OfferedFrame, run: RunSlice): Promise<void> {
    await this.#store.readStored?.(offered, run);
  }

  recordLoss(first: number, last: number, error: FramesError, name?: string): void {
    this.#store.recordLoss(first, last, error, name);
    this.#recorder.recordUnsent(first, last, error);
  }

  flushSoon(): void {
    this.#store.flushSoon?.();
  }
}

class InstrumentedWriter implements FrameWriter {
  readonly #writer: FrameWriter;
  readonly #description: FrameDescription;
  readonly #recorder: SourceRecorder;

  constructor(writer: FrameWriter, description: FrameDescription, recorder: SourceRecorder) {
    this.#writer = writer;
    this.#description = description;
    this.#recorder = recorder;
  }

  write(bytes: Uint8Array): void {
    this.#writer.write(bytes);
  }

  finish(crc32: number): Outcome | Promise<Outcome> {
    const outcome = this.#writer.finish(crc32);
    if (!(outcome instanceof Promise)) {
      this.#recordOutcome(outcome, crc32);
      return outcome;
    }
    return outcome.then((resolved) => {
      this.#recordOutcome(resolved, crc32);
      return resolved;
    });
  }

  #recordOutcome(outcome: Outcome, crc32: number): void {
    if (outcome === "stored") this.#recorder.recordStored(this.#description, crc32);
    else if (outcome === "present") {
      this.#recorder.recordUnsent(this.#description.sequence, this.#description.sequence);
    }
  }

  discard(): void {
    this.#writer.discard();
  }
}
