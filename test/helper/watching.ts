// Watches a folder and records everything it yields.

import { mkdirSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { FramesError } from "../../src/errors.ts";
import type { Frame, Loss } from "../../src/frame.ts";
import type { SkippedPath, SourceEvent } from "../../src/source/source-event.ts";
import type { RootDirectory } from "../../src/source/files/file-filter.ts";
import { createRoot } from "../../src/source/files/walk.ts";
import { DirectoryWatcher, type WatchOptions } from "../../src/source/files/directory-watcher.ts";
import type { openFolderEvents } from "../../src/source/files/folder-events.ts";
import type { WatchedFolder } from "../../src/source/files/watched-folder.ts";

/** A frame with its bytes, or a loss with its error code. */
export interface Came {
  readonly source: string;
  readonly name: string;
  readonly sequence: number;
  readonly bytes: string;
  readonly lost?: string;
}

/** Options of `Watching`. */
export interface WatchingOptions extends Partial<WatchOptions> {
  readonly roots?: readonly RootDirectory[];
  /** Events of the folders, instead of those of the system. */
  readonly openEvents?: typeof openFolderEvents;
  /** Whether to take no frames before `release`. */
  readonly isHeld?: boolean;
}

/** A delay longer than any test, in milliseconds. Results that arrive did not depend on it. */
export const never = 3_600_000;

/** Writes a file to a temporary path and renames it into place, creating its folder. */
export function placeFile(folder: string, name: string, text = name): void {
  const path = join(folder, name);
  mkdirSync(join(path, ".."), { recursive: true });
  writeFileSync(`${path}.part`, text, "latin1");
  renameSync(`${path}.part`, path);
}

/** As long as it lives, `performance.now` tells a time that passes only when a test says so. */
export class StoppedClock {
  readonly #real = performance.now;
  #now = performance.now();

  constructor() {
    performance.now = () => this.#now;
  }

  pass(milliseconds: number): void {
    this.#now += milliseconds;
  }

  [Symbol.dispose](): void {
    performance.now = this.#real;
  }
}

/** Watches a folder and takes its frames, as a delivery does. */
export class Watching {
  readonly came: Came[] = [];
  readonly skipped: SkippedPath[] = [];
  readonly clamped: string[] = [];
  readonly troubles: FramesError[] = [];
  readonly sources = new Map<string, WatchedFolder>();
  /** Sources that ended after returning all their frames. */
  readonly ended: string[] = [];
  readonly watch: DirectoryWatcher;
  #isHeld: boolean;

  constructor(folder: string, options: WatchingOptions = {}) {
    const {
      roots = [createRoot(folder, "run7", false)],
      isHeld = false,
      openEvents,
      ...more
    } = options;
    const usual = { filter: { include: [], exclude: [] }, settleMs: 100, since: undefined };
    this.#isHeld = isHeld;
    this.watch = new DirectoryWatcher({
      ...{ roots, ...usual, ...more },
      ...(openEvents === undefined ? {} : { openEvents }),
      onSource: (source) => {
        if (this.sources.has(source.name)) throw new Error(`${source.name} came twice`);
        this.sources.set(source.name, source);
        if (!this.#isHeld) void this.#take(source);
      },
      onEvent: (event) => this.#onEvent(event),
    });
    this.watch.start();
  }

  #onEvent(event: SourceEvent): void {
    if (event.type === "skipped") this.skipped.push(event.skipped);
    if (event.type === "time-clamped") this.clamped.push(event.path);
    if (event.type === "retry") this.troubles.push(event.error);
  }

  async #take(source: WatchedFolder): Promise<void> {
    for (;;) {
      const item = await source.next(false);
      if (item === undefined) break;
      this.came.push(await read(source, item));
    }
    this.ended.push(source.name);
  }

  /** Starts taking frames. */
  release(): void {
    this.#isHeld = false;
    for (const source of this.sources.values()) void this.#take(source);
  }

  /** Returns the results for a name in order: contents, or the error code of a loss. */
  of(name: string, source = "run7"): string[] {
    return this.came
      .filter((one) => one.name === name && one.source === source)
      .map(({ bytes, lost }) => (lost === undefined ? bytes : `lost: ${lost}`));
  }

  [Symbol.dispose](): void {
    this.watch.close();
    for (const source of this.sources.values()) source.close();
  }
}

/** Reads the content of a frame, and retries if the file changed. */
async function read(source: WatchedFolder, given: Frame | Loss): Promise<Came> {
  for (let item = given; ;) {
    if ("error" in item) {
      const { what: name, first: sequence, error } = item;
      return { source: source.name, name, sequence, bytes: "", lost: error.code };
    }
    const { name, sequence, size } = item;
    const bytes = new Uint8Array(size);
    try {
      item.read(bytes);
      return { source: source.name, name, sequence, bytes: Buffer.from(bytes).toString("latin1") };
    } catch (error) {
      if (!(error instanceof FramesError)) throw error;
      item = source.retry(item, error);
    }
  }
}
