/** Files and folders to the disk itself, many at a time: the system then flushes them together. */
import { closeSync, fsyncSync, openSync } from "node:fs";
import { open } from "node:fs/promises";
import { systemCode } from "../../errors.ts";
import { forEachConcurrent } from "../../common/concurrency.ts";
import { openFlags } from "../../common/open-flags.ts";

/** Flushes under way at the same time. */
const maxConcurrentFlushes = 32;

/** Windows flushes only what may be written. */
const flushMode = process.platform === "win32" ? "r+" : openFlags;

/** Flushes the bytes of files; those that are gone need none. */
export async function syncFiles(paths: Iterable<string>): Promise<void> {
  const deferred: string[] = [];
  await forEachConcurrent(paths, maxConcurrentFlushes, async (path) => {
    try {
      await syncFile(path);
    } catch (error) {
      if (systemCode(error) !== "EMFILE") throw error;
      deferred.push(path);
    }
  });
  // Where few files may be open, there is room for one at a time.
  for (const path of deferred) await syncFile(path);
}

async function syncFile(path: string): Promise<void> {
  try {
    await using file = await open(path, flushMode);
    await file.datasync();
  } catch (error) {
    if (systemCode(error) !== "ENOENT") throw error;
  }
}

/** Flushes the entries of a folder, where the system can. */
export function syncFolder(path: string): void {
  if (process.platform === "win32") return;
  const folder = openSync(path, "r");
  try {
    fsyncSync(folder);
  } finally {
    closeSync(folder);
  }
}

/** Likewise of folders, many at a time. */
export async function syncFolders(paths: Iterable<string>): Promise<void> {
  if (process.platform === "win32") return;
  await forEachConcurrent(paths, maxConcurrentFlushes, async (path) => {
    try {
      await using folder = await open(path, "r");
      await folder.sync();
    } catch (error) {
      if (systemCode(error) !== "ENOENT") throw error;
    }
  });
}
