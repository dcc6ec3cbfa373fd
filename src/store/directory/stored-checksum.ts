/**
 * Reads stored files in slices to verify offered frames, and remembers the last result. An offer that
 * repeats a frame costs no second reading while its file is unchanged.
 */
import { fstatSync, lstatSync, openSync, readSync, type BigIntStats } from "node:fs";
import { crc32 } from "../../common/checksum.ts";
import { closeReadFile } from "../../common/close-file.ts";
import { openFlags } from "../../common/open-flags.ts";
import type { RunSlice } from "../../frame.ts";
import { readBuffer } from "./file-check.ts";
import { toReadError } from "./store-error.ts";

export class StoredChecksum {
  #last: { readonly path: string; readonly version: string; readonly crc32: number } | undefined;
  /** The path of the last `read`, whatever its result. */
  #lastPath: string | undefined;

  /**
   * Reads the file at `path`. A file that cannot be read, or that changes, has no checksum.
   *
   * @throws {FramesError} `store` if the process has too many open files
   */
  async read(path: string, run: RunSlice): Promise<void> {
    this.#lastPath = path;
    this.#last = undefined;
    let file: number | undefined;
    try {
      const opened = (file = await run(() => openSync(path, openFlags)));
      const stats = fstatSync(opened, { bigint: true });
      if (!stats.isFile()) return;
      let [remaining, crc] = [Number(stats.size), 0];
      while (remaining > 0) {
        const length = Math.min(remaining, readBuffer.length);
        const read = await run(() => {
          const read = readSync(opened, readBuffer, 0, length, null);
          crc = crc32(readBuffer.subarray(0, read), crc);
          return read;
        });
        if (read === 0) return;
        remaining -= read;
      }
      this.#last = { path, version: versionOf(stats), crc32: crc };
    } catch (error) {
      const failure = toReadError(error, path);
      if (failure.code !== "not-stored") throw failure;
    } finally {
      if (file !== undefined) closeReadFile(file);
    }
  }

  /**
   * Returns the checksum of the file at `path`: undefined if `read` has to be called first, and
   * `changed` if the file has changed since, or could not be read.
   */
  find(path: string): number | "changed" | undefined {
    if (this.#lastPath !== path) return undefined;
    const found = lstatSync(path, { bigint: true, throwIfNoEntry: false });
    const isSame = found !== undefined && this.#last?.version === versionOf(found);
    if (isSame) return this.#last!.crc32;
    // The next offer reads the file again.
    this.#lastPath = undefined;
    return "changed";
  }
}

/**
 * Returns a text that differs for another file, and for other content. The system sets the change
 * time with every write, and no program can set it back.
 */
function versionOf({ dev, ino, size, mtimeNs, ctimeNs }: BigIntStats): string {
  return [dev, ino, size, mtimeNs, ctimeNs].join(" ");
}
