// Folders of a chaos run, each with a disk that can be filled.

import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, statfsSync, writeFileSync } from "node:fs";
import { open } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { hangMs } from "../helper/time.ts";

/** Cleans up when its standard input closes, however the test process ended. */
const script = `
  trap "" INT TERM HUP
  cat
  cd "$0/.children" && kill -9 *
  cd /
  umount -l "$0/disk"
  rm -rf "$0"
`;

const keeperDeadline = hangMs;

/** A folder for files of senders, with a disk for the store or for a spool. */
export class Room {
  readonly path: string = mkdtempSync(join(tmpdir(), "frames-chaos-"));
  readonly disk: string = join(this.path, "disk");
  /** Whether `disk` is a separate small disk. Otherwise it must not be filled. */
  readonly canFill: boolean;
  readonly #ballast = join(this.disk, "ballast");
  readonly #keeper: Bun.Subprocess<"pipe", "ignore", "ignore">;

  /** @param size size of the disk in bytes, if this process may mount one */
  constructor(size: number) {
    mkdirSync(join(this.path, ".children"));
    mkdirSync(this.disk);
    // `bun test` runs no exit handlers, and SIGKILL allows none, so a shell waits for the end of
    // this process.
    this.#keeper = Bun.spawn(["sh", "-c", script, this.path], {
      stdio: ["pipe", "ignore", "ignore"],
    });
    this.#keeper.unref();
    const options = `size=${size},mode=0700`;
    const mount = ["-t", "tmpfs", "-o", options, "frames-chaos", this.disk];
    this.canFill =
      process.platform === "linux" && spawnSync("mount", mount, { stdio: "ignore" }).status === 0;
  }

  /** Ensures that a child does not outlive this process. */
  adopt(child: Bun.Subprocess): void {
    const note = join(this.path, ".children", `${child.pid}`);
    writeFileSync(note, "");
    void child.exited.then(() => rmSync(note, { force: true }));
  }

  /** Free bytes on the disk. */
  get free(): number {
    const { bavail, bsize } = statfsSync(this.disk);
    return bavail * bsize;
  }

  /** Fills the disk until `leave` bytes are free. */
  async fill(leave: number): Promise<void> {
    const file = await open(this.#ballast, "w");
    try {
      const chunk = Buffer.alloc(2 ** 20, 0xba);
      for (let size = chunk.length; ;) {
        const more = Math.min(size, this.free - leave);
        if (more <= 0) return;
        try {
          await file.write(chunk, 0, more);
        } catch (error) {
          if ((error as NodeJS.ErrnoException).code !== "ENOSPC") throw error;
          // Not even one more byte fits, so the disk is full.
          if (size === 1) return;
          size = size > 4096 ? 4096 : 1;
        }
      }
    } finally {
      await file.close();
    }
  }

  /** Frees the space that `fill` has used. */
  empty(): void {
    rmSync(this.#ballast, { force: true });
  }

  /** Ends remaining processes and removes everything. */
  async close(): Promise<void> {
    void this.#keeper.stdin.end();
    const late = Bun.sleep(keeperDeadline).then(() => "late");
    if ((await Promise.race([this.#keeper.exited, late])) === "late") {
      throw new Error(`${this.path} was not tidied up within ${keeperDeadline / 1000} s`);
    }
  }
}
