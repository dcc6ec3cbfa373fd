/** Compares rivals on files that are on a disk and not in memory. */
import { dlopen } from "bun:ffi";
import {
  closeSync,
  fsyncSync,
  mkdtempSync,
  openSync,
  readdirSync,
  rmSync,
  statfsSync,
} from "node:fs";
import { join } from "node:path";
import { type Bench, compare, type Comparison } from "./compare.ts";
import type { Corpus } from "./corpora.ts";

/** The folder of the executables, which is on a disk more often than the system's temporary one. */
const disk = join(import.meta.dir, "../../dist");

const tmpfsMagic = 0x01021994;

/** `POSIX_FADV_DONTNEED` of fcntl.h. */
const dontNeed = 4;

/** Moves the frames of `corpus`, each time from the disk. */
export async function cold(bench: Bench, corpus: Corpus): Promise<Comparison[]> {
  if (process.platform !== "linux" || statfsSync(disk).type === tmpfsMagic) {
    console.error(`Cold files left out: need Linux, and a disk below ${disk}`);
    return [];
  }
  const { symbols } = dlopen("libc.so.6", {
    posix_fadvise: { args: ["int", "i64", "i64", "int"], returns: "int" },
  });
  const dropFromMemory = (folders: readonly string[]): void => {
    for (const folder of folders) {
      for (const name of readdirSync(folder)) {
        const file = openSync(join(folder, name), "r");
        // The system keeps what it has not written to the disk yet.
        fsyncSync(file);
        const failed = symbols.posix_fadvise(file, 0, 0, dontNeed);
        closeSync(file);
        if (failed !== 0) throw new Error(`posix_fadvise failed with ${failed}`);
      }
    }
  };
  const folder = mkdtempSync(join(disk, "cold-"));
  try {
    const rivals = bench.rivals.filter(({ takesMany }) => takesMany === true);
    const conditions = { disk: folder, before: dropFromMemory };
    const named = { ...corpus, name: `${corpus.name}, cold` };
    return [await compare({ ...bench, rivals }, named, conditions)];
  } finally {
    rmSync(folder, { recursive: true });
  }
}
