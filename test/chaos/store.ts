// Compares the store of a chaos run with the sender's tree, during the run and at the end.

import { Database } from "bun:sqlite";
import { existsSync, lstatSync, readdirSync, readFileSync, type Stats } from "node:fs";
import { join } from "node:path";
import { crc32 } from "node:zlib";

import { sameTree } from "../helper/program.ts";
import { keyOf, stream, type Tree, type TreeFrame } from "./tree.ts";

/** Metadata of a file with correct content. Unchanged metadata means unchanged content. */
interface Seen {
  readonly inode: number;
  readonly size: number;
  readonly written: number;
}

/** Journal row of a frame. */
interface Row {
  stream: string;
  source: string;
  name: string;
  bytes: bigint;
  crc32: bigint;
  captured: bigint;
}

/** Throws on every violation. */
export class StoreCheck {
  /** Frames whose receipt the sender has read. */
  readonly receipted = new Set<string>();
  readonly #folder: string;
  readonly #tree: Tree;
  readonly #seen = new Map<string, Seen>();

  constructor(folder: string, tree: Tree) {
    this.#folder = folder;
    this.#tree = tree;
  }

  /** Number of frames seen under their final names. */
  get stored(): number {
    return this.#seen.size;
  }

  /** Marks all frames as receipted. Called when the sender reports a complete delivery. */
  everythingDelivered(): void {
    for (const key of this.#tree.frames.keys()) this.receipted.add(key);
    this.look();
  }

  /** Checks that every receipted frame exists, and that every file is a whole frame. */
  look(): void {
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
    const top = join(this.#folder, stream);
    if (existsSync(top)) visit(top, stream);
    if (found === this.receipted.size) return;
    const missing = [...this.receipted].filter((key) => !existsSync(join(top, this.#path(key))));
    throw new Error(`${missing.length} receipted frames are gone: ${missing.slice(0, 10).join()}`);
  }

  #path(key: string): string {
    return key.startsWith(`${stream}/`) ? key.slice(stream.length + 1) : key;
  }

  /** Returns whether the file exists. A frame without a receipt may disappear again. */
  #lookAt(key: string, path: string): boolean {
    const frame = this.#tree.frames.get(key);
    if (frame === undefined) throw new Error(`${path} is no frame that was sent`);
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

  /** Checks the store after its server has stopped. */
  checkEnd(): void {
    this.everythingDelivered();
    const wrong = sameTree(this.#tree.folder, join(this.#folder, stream));
    const hidden = readdirSync(join(this.#folder, stream), { recursive: true, encoding: "utf8" });
    for (const name of hidden) {
      if (/(?:^|[/\\])\./.test(name)) wrong.push(`${name} was left behind`);
    }
    for (const name of readdirSync(this.#folder)) {
      if (name !== stream && name !== ".frames") wrong.push(`${name} lies in the store`);
    }
    for (const name of readdirSync(join(this.#folder, ".frames/partial"))) {
      wrong.push(`.frames/partial/${name} was left behind`);
    }
    wrong.push(...this.#journalFaults());
    if (wrong.length === 0) return;
    throw new Error(`${wrong.length} differences: ${wrong.slice(0, 20).join("; ")}`);
  }

  #journalFaults(): string[] {
    const path = join(this.#folder, ".frames/journal.sqlite");
    const journal = new Database(path, { readonly: true, safeIntegers: true });
    try {
      const wrong: string[] = [];
      const left = new Map(this.#tree.frames);
      for (const row of journal.query<Row, []>("SELECT * FROM frames").iterate()) {
        const frame = left.get(keyOf(row));
        left.delete(keyOf(row));
        const isRight =
          frame !== undefined &&
          row.stream === stream &&
          row.bytes === BigInt(frame.size) &&
          row.crc32 === BigInt(frame.crc32) &&
          row.captured === frame.captured;
        if (!isRight) wrong.push(`the journal says of ${keyOf(row)}: ${Bun.inspect(row)}`);
      }
      for (const key of left.keys()) wrong.push(`the journal does not know ${key}`);
      for (const loss of journal.query("SELECT * FROM losses").iterate()) {
        wrong.push(`the journal has a loss: ${Bun.inspect(loss)}`);
      }
      return wrong;
    } finally {
      journal.close();
    }
  }
}

function isSame(seen: Seen, file: Stats): boolean {
  return seen.inode === file.ino && seen.size === file.size && seen.written === file.mtimeMs;
}

function checkContent(frame: TreeFrame, path: string): void {
  const bytes = readFileSync(path);
  if (bytes.length === frame.size && crc32(bytes) === frame.crc32) return;
  const what = bytes.length === frame.size ? "other bytes" : `${bytes.length} bytes`;
  throw new Error(`${path} has ${what}; the frame has ${frame.size} bytes`);
}
