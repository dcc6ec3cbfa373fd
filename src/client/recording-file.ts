/** Writes an MCAP file under a temporary name, and gives it its name when it is complete. */
import { closeSync, fstatSync, ftruncateSync, lstatSync, writeSync } from "node:fs";
import { FramesError } from "../errors.ts";
import { type McapOutput, McapWriter } from "../mcap/writer.ts";
import { software } from "../version.ts";
import { createPartialFile, nameFile, partialPathOf, runFileAction } from "./new-file.ts";

export class RecordingFile {
  readonly path: string;
  readonly writer: McapWriter;
  readonly #file: number;

  /**
   * Creates the file as `PATH.part`, in place of one that an earlier run left.
   *
   * @throws {FramesError} `usage` if the path is taken, `store` if the file cannot be written
   */
  constructor(path: string, stream: string) {
    this.path = path;
    this.#file = createPartialFile(path);
    this.writer = new McapWriter(this.#output(), { library: software, stream });
  }

  get partialPath(): string {
    return partialPathOf(this.path);
  }

  #output(): McapOutput {
    let length = 0;
    return {
      append: (bytes) => {
        this.#write(bytes, length);
        length += bytes.length;
      },
      patch: (position, bytes) => this.#write(bytes, position),
      cut: (position) => {
        this.#run(() => ftruncateSync(this.#file, position));
        length = position;
      },
    };
  }

  #write(bytes: Uint8Array, position: number): void {
    this.#run(() => {
      for (let done = 0; done < bytes.length;) {
        done += writeSync(this.#file, bytes, done, bytes.length - done, position + done);
      }
    });
  }

  /**
   * Writes the index, and gives the file its name.
   *
   * @throws {FramesError} `store`, `usage` if the path is taken meanwhile
   */
  complete(): void {
    this.writer.end();
    this.#run(() => this.#checkIsOwn());
    this.close();
    nameFile(this.path);
  }

  /** Closes the file and leaves it under its temporary name. */
  close(): void {
    this.#run(() => closeSync(this.#file));
  }

  /** Checks that another run of the command has not put its own file in place. */
  #checkIsOwn(): void {
    const own = fstatSync(this.#file, { bigint: true });
    const found = lstatSync(this.partialPath, { bigint: true, throwIfNoEntry: false });
    if (found?.ino === own.ino && found.dev === own.dev) return;
    throw new FramesError(
      "store",
      `Cannot write ${this.path}: another process removed or replaced ${this.partialPath}; run the command again`,
    );
  }

  #run<T>(act: () => T): T {
    return runFileAction(this.path, act);
  }
}
