/** Frames from a directory tree: each folder that holds frames is a source. */
import {
  type BigIntStats,
  closeSync,
  constants,
  type Dirent,
  fstatSync,
  lstatSync,
  openSync,
  readdirSync,
  readSync,
  statSync,
} from "node:fs";
import { basename, join, resolve } from "node:path";
import { FramesError, systemCode, systemSentence } from "../errors.ts";
import type { Frame, FrameSource, Loss } from "../frame.ts";
import { naturalOrder } from "./order.ts";

/** A directory to send, and the name of the source that the frames directly in it belong to. */
export interface Root {
  readonly path: string;
  readonly name: string;
  /** Whether sub-folders are named below `name`; otherwise by their path below `path` alone. */
  readonly nested: boolean;
}

/** Which files are frames, beyond what every directory leaves out. */
export interface Filter {
  readonly include: readonly string[];
  readonly exclude: readonly string[];
}

/** Something in a directory that is not sent. */
export interface Skipped {
  readonly path: string;
  readonly why: string;
}

/** What a walk found. */
export interface Walk {
  readonly sources: DirectorySource[];
  /** Links and special files, which are never followed. */
  readonly skipped: Skipped[];
  /** Folders that could not be read: frames in them are missing. */
  readonly unreadable: Skipped[];
}

/**
 * Finds the sources below the roots, in natural order.
 *
 * @throws {FramesError} `missing` if a root is not a directory that can be read, `usage` if two
 * folders would be the same source
 */
export function walk(roots: readonly Root[], filter: Filter): Walk {
  const found: Walk = { sources: [], skipped: [], unreadable: [] };
  const matches = compileFilter(filter);
  for (const root of roots) {
    const path = resolve(root.path);
    checkRoot(root.path);
    walkFolder(path, root, "", matches, found);
  }
  found.skipped.sort((a, b) => naturalOrder(a.path, b.path));
  const seen = new Map<string, string>();
  for (const { name, path } of found.sources) {
    const other = seen.get(name);
    if (other !== undefined) {
      throw new FramesError(
        "usage",
        `Cannot send ${other} and ${path}: both would be the source ${name}; name one with --source NAME=PATH`,
      );
    }
    seen.set(name, path);
  }
  return found;
}

function checkRoot(path: string): void {
  let why: string | undefined;
  try {
    if (!statSync(path).isDirectory()) why = "not a directory";
    else readdirSync(path);
  } catch (error) {
    why = systemSentence(error);
  }
  if (why !== undefined) throw new FramesError("missing", `Cannot send ${path}: ${why}`);
}

type Matches = (relative: string, name: string, folder: boolean) => boolean;

/** Patterns with a slash are held against the path below the root, others against the name. */
function compileFilter(filter: Filter): Matches {
  const compile = (pattern: string) => {
    const folderOnly = pattern.endsWith("/");
    const bare = pattern.replace(/\/$/, "").replace(/^\//, "");
    const glob = new Bun.Glob(bare);
    const whole = pattern.replace(/\/$/, "").includes("/");
    return (relative: string, name: string, folder: boolean) =>
      (folder || !folderOnly) && glob.match(whole ? relative : name);
  };
  const include = filter.include.map(compile);
  const exclude = filter.exclude.map(compile);
  return (relative, name, folder) => {
    if (exclude.some((test) => test(relative, name, folder))) return false;
    return folder || include.length === 0 || include.some((test) => test(relative, name, folder));
  };
}

function walkFolder(path: string, root: Root, below: string, matches: Matches, found: Walk): void {
  let entries: Dirent[];
  try {
    entries = readdirSync(path, { withFileTypes: true });
  } catch (error) {
    found.unreadable.push({ path, why: systemSentence(error) });
    return;
  }
  const names: string[] = [];
  const folders: string[] = [];
  for (const entry of entries) {
    const { name } = entry;
    if (name.startsWith(".") || name.endsWith(".tmp") || name.endsWith(".part")) continue;
    const relative = below === "" ? name : `${below}/${name}`;
    const kind = kindOf(entry, join(path, name));
    if (!matches(relative, name, kind === "folder")) continue;
    if (kind === "file") names.push(name);
    else if (kind === "folder") folders.push(name);
    else found.skipped.push({ path: join(path, name), why: kind });
  }
  if (names.length > 0) {
    names.sort(naturalOrder);
    found.sources.push(new DirectorySource(sourceName(root, below), path, names));
  }
  for (const name of folders.sort(naturalOrder)) {
    walkFolder(join(path, name), root, below === "" ? name : `${below}/${name}`, matches, found);
  }
}

function sourceName(root: Root, below: string): string {
  if (below === "") return root.name;
  return root.nested ? `${root.name}/${below}` : below;
}

function kindOf(entry: Dirent, path: string): string {
  if (entry.isFile()) return "file";
  if (entry.isDirectory()) return "folder";
  if (entry.isSymbolicLink()) return "a symbolic link";
  if (entry.isFIFO()) return "a named pipe";
  if (entry.isSocket()) return "a socket";
  if (entry.isBlockDevice() || entry.isCharacterDevice()) return "a device";
  // Some file systems do not say with the name what it is.
  const stats = lstatSync(path, { throwIfNoEntry: false });
  if (stats?.isFile()) return "file";
  return stats?.isDirectory() ? "folder" : "a special file";
}

/** How often a file that changes while it is read is read again. */
const attempts = 3;

/**
 * Where reading through `Bun.file` takes over from reading straight into the outgoing buffer.
 *
 * Measured with Bun 1.4.5 on two cores, tmpfs to a loopback socket, 400 MB, median ms (CPU ms):
 *
 *     frames of         20 KB        200 KB       2 MB
 *     into the buffer   254 (257)    134 (130)    126 (123)
 *     Bun.file          406 (508)    193 (234)    136 (151)
 *
 * So whatever fits into one message is read into the buffer. Larger frames are read by `Bun.file`,
 * which keeps a slow disk from holding up the other sources, and hands its bytes to the socket as
 * they are, one DATA (SPEC section 5) at a time: with slices of 4, 2 and 1 MiB the sender of a 1.5 GB
 * frame took up to 154, 147 and 93 MB of memory, and the same time.
 */
const sliceSize = (1 << 20) - 4;

/** Files from this size on are not kept open while they wait: many sources may have one. */
const keptOpen = 1_000_000;

/** The frames of one folder, in natural order. */
export class DirectorySource implements FrameSource {
  readonly name: string;
  readonly path: string;
  readonly #names: readonly string[];
  readonly #attempts = new Map<number, number>();
  #next = 0;
  #open: FileFrame | undefined;

  constructor(name: string, path: string, names: readonly string[]) {
    this.name = name;
    this.path = path;
    this.#names = names;
  }

  get total(): number {
    return this.#names.length;
  }

  /** Names of the frames, in order. */
  get names(): readonly string[] {
    return this.#names;
  }

  next(): Frame | Loss | undefined {
    if (this.#next >= this.#names.length) return undefined;
    return this.#read(++this.#next);
  }

  again(frame: Frame, error: FramesError): Frame | Loss {
    const { sequence } = frame;
    const tried = (this.#attempts.get(sequence) ?? 0) + 1;
    if (error.code === "changed" && tried < attempts) {
      this.#attempts.set(sequence, tried);
      return this.#read(sequence);
    }
    this.#attempts.delete(sequence);
    return this.#loss(sequence, error);
  }

  close(): void {
    this.#open?.close();
  }

  #read(sequence: number): Frame | Loss {
    const name = this.#names[sequence - 1]!;
    try {
      return (this.#open = new FileFrame(`${this.path}/${name}`, name, sequence));
    } catch (error) {
      return this.#loss(sequence, readFailure(error, name));
    }
  }

  #loss(sequence: number, error: FramesError): Loss {
    const what = `${this.path}/${this.#names[sequence - 1]!}`;
    return { first: sequence, last: sequence, what, error };
  }
}

// A file that became a link or a pipe since its folder was listed is not followed or waited for.
const openFlags = constants.O_RDONLY | (constants.O_NOFOLLOW ?? 0) | (constants.O_NONBLOCK ?? 0);

/** A file as a frame: what it was when it was opened is what it must be when it has been read. */
class FileFrame implements Frame {
  readonly name: string;
  readonly sequence: number;
  readonly captured: bigint;
  readonly size: number;
  readonly metadata = "";
  readonly #path: string;
  readonly #before: BigIntStats;
  #file: number | undefined;

  constructor(path: string, name: string, sequence: number) {
    this.#path = path;
    this.name = name;
    this.sequence = sequence;
    this.#file = openSync(path, openFlags);
    try {
      this.#before = fstatSync(this.#file, { bigint: true });
      if (!this.#before.isFile()) throw new FramesError("unreadable", "it is no longer a file");
    } catch (error) {
      this.close();
      throw error;
    }
    this.captured = this.#before.mtimeNs;
    this.size = Number(this.#before.size);
    if (this.size > keptOpen) this.close();
  }

  read(into: Uint8Array): void {
    const file = this.#file ?? openSync(this.#path, openFlags);
    this.#file = file;
    try {
      let length = 0;
      while (length < into.length) {
        const read = readSync(file, into, length, into.length - length, length);
        if (read === 0) throw changed(this.name);
        length += read;
      }
      this.#checkUnchanged(fstatSync(file, { bigint: true }));
    } catch (error) {
      throw readFailure(error, this.name);
    } finally {
      this.close();
    }
  }

  async *pieces(): AsyncGenerator<Uint8Array, undefined> {
    this.close();
    const slice = (from: number) =>
      Bun.file(this.#path)
        .slice(from, Math.min(from + sliceSize, this.size))
        .bytes();
    try {
      let ahead: Promise<Uint8Array> | undefined = slice(0);
      for (let from = 0; from < this.size; from += sliceSize) {
        const expected = Math.min(sliceSize, this.size - from);
        const bytes = await ahead!;
        ahead = from + expected < this.size ? slice(from + expected) : undefined;
        ahead?.catch(() => {});
        if (bytes.length !== expected) throw changed(this.name);
        // `Bun.file` opens by name each time: that all slices are of one unchanged file is known
        // only when the last has been read.
        if (ahead === undefined) this.#checkUnchanged(lstatSync(this.#path, { bigint: true }));
        yield bytes;
      }
    } catch (error) {
      throw readFailure(error, this.name);
    }
    return undefined;
  }

  #checkUnchanged(after: BigIntStats): void {
    const before = this.#before;
    if (
      after.size !== before.size ||
      after.mtimeNs !== before.mtimeNs ||
      after.ctimeNs !== before.ctimeNs ||
      after.ino !== before.ino
    ) {
      throw changed(this.name);
    }
  }

  close(): void {
    if (this.#file !== undefined) closeSync(this.#file);
    this.#file = undefined;
  }
}

function changed(name: string): FramesError {
  return new FramesError("changed", `Cannot read ${name}: it kept changing while it was read`);
}

function readFailure(error: unknown, name: string): FramesError {
  if (error instanceof FramesError) return error;
  const options = { cause: error };
  if (systemCode(error) !== "ENOENT") {
    return new FramesError("unreadable", `Cannot read ${name}: ${systemSentence(error)}`, options);
  }
  // A name that is not UTF-8 comes from the directory with U+FFFD in it, and cannot be opened.
  if (name.includes("\uFFFD")) {
    return new FramesError("unreadable", `Cannot read ${name}: its name is not UTF-8`, options);
  }
  return new FramesError("vanished", `Cannot read ${name}: it was removed`, options);
}

/** The root that one PATH of the command line stands for. */
export function rootOf(path: string, name: string | undefined, nested: boolean): Root {
  return { path, name: name ?? basename(resolve(path)), nested };
}
