/** Writes an MCAP file under a temporary name, and gives it its name when it is complete. */
import {
  closeSync,
  constants,
  fstatSync,
  ftruncateSync,
  linkSync,
  lstatSync,
  openSync,
  renameSync,
  rmSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { FramesError, systemCode, systemSentence } from "../errors.ts";
import { type McapOutput, McapWriter } from "../mcap/writer.ts";
import { software } from "../version.ts";

/** Creates a file that must not exist. */
const createFlags = constants.O_RDWR | constants.O_CREAT | constants.O_EXCL;

/** Codes of file systems that have no hard links. */
const noLinkCodes = new Set(["EPERM", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "EMLINK"]);

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
    checkIsFree(path);
    this.path = path;
    this.#file = this.#run(() => {
      rmSync(this.partialPath, { force: true });
      return openSync(this.partialPath, createFlags, 0o666);
    });
    this.writer = new McapWriter(this.#output(), { library: software, stream });
  }

  get partialPath(): string {
    return `${this.path}.part`;
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
    this.#run(() => {
      try {
        // Unlike a rename, a link replaces no file.
        linkSync(this.partialPath, this.path);
        unlinkSync(this.partialPath);
      } catch (error) {
        if (!noLinkCodes.has(systemCode(error) ?? "")) throw error;
        checkIsFree(this.path);
        renameSync(this.partialPath, this.path);
      }
    });
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
    try {
      return act();
    } catch (error) {
      if (error instanceof FramesError) throw error;
      if (systemCode(error) === "EEXIST") throw takenError(this.path);
      throw new FramesError(
        "store",
        `Cannot write ${this.partialPath}: ${systemSentence(error)}; run the command again when that is solved`,
        { cause: error },
      );
    }
  }
}

/**
 * Checks that no file has this path.
 *
 * @throws {FramesError} `usage`
 */
export function checkIsFree(path: string): void {
  let entry: unknown;
  try {
    entry = lstatSync(path, { throwIfNoEntry: false });
  } catch {
    // Creating the file reports the error.
  }
  if (entry !== undefined) throw takenError(path);
}

function takenError(path: string): FramesError {
  return new FramesError(
    "usage",
    `Cannot write ${path}: it exists; choose another name, or remove it`,
  );
}
