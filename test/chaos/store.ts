// Compares the stored frames of a scenario with its frames, during the run and at the end.

import type { Database } from "bun:sqlite";
import { existsSync, lstatSync, readdirSync, readFileSync, type Stats } from "node:fs";
import { join } from "node:path";
import { crc32 } from "node:zlib";

import { type ChaosFrame, type FrameRow, keyOf, type LossRow, type Scenario } from "./scenario.ts";

/** Metadata of a file with correct content. Unchanged metadata means unchanged content. */
interface Seen {
  readonly inode: number;
  readonly size: number;
  readonly written: number;
}

/** Throws on every violation. */
export class StoreCheck {
  /** Frames that must be stored: their receipts were read, or their files removed. */
  readonly receipted = new Set<string>();
  readonly #folder: string;
  readonly #scenario: Scenario;
  readonly #seen = new Map<string, Seen>();

  /** @param folder of the stream in the store */
  constructor(folder: string, scenario: Scenario) {
    this.#folder = folder;
    this.#scenario = scenario;
  }

  /** Marks frames as receipted. Called when the sender reports a complete delivery. */
  everythingDelivered(): void {
    this.look();
    for (const key of this.#scenario.frames.keys()) {
      if (!this.#scenario.isUnsettled(key)) this.receipted.add(key);
    }
    this.look();
  }

  /** Checks that every receipted frame exists, and that every file is a whole frame. */
  look(): void {
    const { stream } = this.#scenario;
    for (const key of this.#scenario.newlyDue()) this.receipted.add(key);
    let found = 0;
    const visit = (folder: string, source: string): void => {
      for (const entry of readdirSync(folder, { withFileTypes: true })) {
        const { name } = entry;
        if (name.startsWith(".")) continue;
        if (entry.isDirectory()) {
          visit(join(folder, name), source === stream ? name : `${source}/${name}`);
          continue;
        }
        const key = `${source}/${name}`;
        if (this.#lookAt(key, join(folder, name)) && this.receipted.has(key)) found++;
      }
    };
    if (existsSync(this.#folder)) visit(this.#folder, stream);
    if (found === this.receipted.size) return;
    const missing = [...this.receipted].filter((key) => !existsSync(this.#pathOf(key)));
    throw new Error(`${missing.length} receipted frames are gone: ${missing.slice(0, 10).join()}`);
  }

  #pathOf(key: string): string {
    const { stream } = this.#scenario;
    return join(this.#folder, key.startsWith(`${stream}/`) ? key.slice(stream.length + 1) : key);
  }

  /** Returns whether the file exists. A frame without a receipt may disappear again. */
  #lookAt(key: string, path: string): boolean {
    const frame = this.#scenario.frameAt(key, path);
    if (frame === undefined) throw new Error(`${path} is no frame that was sent`);
    if (this.#scenario.isUnsettled(key)) return true;
    const file = lstatSync(path, { throwIfNoEntry: false });
    if (file === undefined) return false;
    const seen = this.#seen.get(key);
    if (seen !== undefined && isSame(seen, file)) return true;
    if (seen !== undefined && this.receipted.has(key)) {
      throw new Error(`${path} was written again after its receipt`);
    }
    checkContent(frame, path);
    this.#seen.set(key, { inode: file.ino, size: file.size, written: file.mtimeMs });
    return true;
  }

  /** Returns what is wrong after the server has stopped, given its journal. */
  faults(journal: Database): string[] {
    this.everythingDelivered();
    const { stream } = this.#scenario;
    const wrong: string[] = [];
    for (const name of readdirSync(this.#folder, { recursive: true, encoding: "utf8" })) {
      if (/(?:^|[/\\])\./.test(name)) wrong.push(`${stream}/${name} was left behind`);
    }
    const select = (table: string) =>
      journal.query<unknown, [string]>(`SELECT * FROM ${table} WHERE stream = ?`).all(stream);
    const rows = select("frames") as FrameRow[];
    const losses = select("losses") as LossRow[];
    const left = new Map(this.#scenario.frames);
    for (const row of rows) {
      const key = keyOf(row);
      const frame = left.get(key);
      left.delete(key);
      if (frame !== undefined && this.#scenario.isUnsettled(key)) continue;
      const isRight =
        frame !== undefined &&
        row.bytes === BigInt(frame.size) &&
        row.crc32 === BigInt(frame.crc32) &&
        row.captured === (frame.captured ?? row.captured);
      if (!isRight) wrong.push(`the journal says of ${key}: ${Bun.inspect(row)}`);
    }
    for (const key of left.keys()) {
      if (this.#scenario.isUnsettled(key) || this.#scenario.mayBeUnknown(key, losses)) continue;
      wrong.push(`the journal does not know ${key}`);
    }
    wrong.push(...this.#scenario.faults(rows, losses));
    return wrong;
  }
}

function isSame(seen: Seen, file: Stats): boolean {
  return seen.inode === file.ino && seen.size === file.size && seen.written === file.mtimeMs;
}

function checkContent(frame: ChaosFrame, path: string): void {
  const bytes = readFileSync(path);
  if (bytes.length === frame.size && crc32(bytes) === frame.crc32) return;
  const what = bytes.length === frame.size ? "other bytes" : `${bytes.length} bytes`;
  throw new Error(`${path} has ${what}; the frame has ${frame.size} bytes`);
}
