/** Frames from a folder. */
import { type BigIntStats, closeSync, constants, fstatSync, openSync, readSync } from "node:fs";
import { FramesError, systemCode, systemSentence } from "../errors.ts";
import type { Frame, FrameSource, Loss } from "../frame.ts";

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
    this.#open?.close();
    const name = this.#names[sequence - 1]!;
    try {
      return (this.#open = new FileFrame(`${this.path}/${name}`, name, sequence));
    } catch (error) {
      return this.#loss(sequence, readFailure(error, name));
    }
  }

  #loss(sequence: number, error: FramesError): Loss {
    return { first: sequence, last: sequence, what: this.#names[sequence - 1]!, error };
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
      if (!this.#before.isFile()) {
        throw new FramesError("unreadable", "it is no longer a file");
      }
    } catch (error) {
      this.close();
      throw error;
    }
    this.captured = this.#before.mtimeNs;
    this.size = Number(this.#before.size);
    if (this.size > keptOpen) this.close();
  }

  /** The open file; one that was closed meanwhile must still be the same. */
  #opened(): number {
    if (this.#file === undefined) {
      this.#file = openSync(this.#path, openFlags);
      this.#checkUnchanged(this.#file);
    }
    return this.#file;
  }

  read(into: Uint8Array): void {
    try {
      const file = this.#opened();
      let length = 0;
      while (length < into.length) {
        const read = readSync(file, into, length, into.length - length, length);
        if (read === 0) throw changed();
        length += read;
      }
      this.#checkUnchanged(file);
    } catch (error) {
      throw readFailure(error, this.name);
    } finally {
      this.close();
    }
  }

  async *pieces(): AsyncGenerator<Uint8Array, undefined> {
    let file: number | undefined;
    let ahead: Promise<Uint8Array> | undefined;
    try {
      const own = (file = this.#opened());
      // It is closed below and nowhere else, and only when nothing reads it any more: a read under
      // way would go on in whatever file is opened next under the same number.
      this.#file = undefined;
      // Bun seeks to the start of a slice unless that is 0: the file is newly opened, and one slice
      // is read at a time, in order.
      const slice = (from: number) =>
        Bun.file(own)
          .slice(from, Math.min(from + sliceSize, this.size))
          .bytes();
      if (this.size > 0) ahead = slice(0);
      for (let from = 0; from < this.size; from += sliceSize) {
        const expected = Math.min(sliceSize, this.size - from);
        const bytes = await ahead!;
        ahead = from + expected < this.size ? slice(from + expected) : undefined;
        // It is awaited in the next round, or at the end.
        ahead?.catch(() => {});
        if (bytes.length !== expected) throw changed();
        if (ahead === undefined) this.#checkUnchanged(own);
        yield bytes;
      }
    } catch (error) {
      throw readFailure(error, this.name);
    } finally {
      await ahead?.catch(() => {});
      if (file !== undefined) closeSync(file);
    }
    return undefined;
  }

  #checkUnchanged(file: number): void {
    const before = this.#before;
    const after = fstatSync(file, { bigint: true });
    if (
      after.size !== before.size ||
      after.mtimeNs !== before.mtimeNs ||
      after.ctimeNs !== before.ctimeNs ||
      after.ino !== before.ino
    ) {
      throw changed();
    }
  }

  close(): void {
    if (this.#file !== undefined) closeSync(this.#file);
    this.#file = undefined;
  }
}

function changed(): FramesError {
  return new FramesError("changed", "it kept changing while it was read");
}

function readFailure(error: unknown, name: string): FramesError {
  if (error instanceof FramesError) return error;
  const options = { cause: error };
  if (systemCode(error) !== "ENOENT") {
    return new FramesError("unreadable", systemSentence(error), options);
  }
  // A name that is not UTF-8 comes from the directory with U+FFFD in it, and cannot be opened.
  if (name.includes("\uFFFD")) {
    return new FramesError("unreadable", "its name is not UTF-8", options);
  }
  return new FramesError("vanished", "it was removed before it was read", options);
}
