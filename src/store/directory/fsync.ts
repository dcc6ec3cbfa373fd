/**
 * Flushes files and folders to the disk. Many flushes run concurrently, because the system can
 * combine them.
 */
import { closeSync, fsyncSync, openSync } from "node:fs";
import { open } from "node:fs/promises";
import { isExhausted, systemCode } from "../../errors.ts";
import { forEachConcurrent } from "../../common/concurrency.ts";
import { openFlags } from "../../common/open-flags.ts";

/** Flushes in progress at a time. */
const maxConcurrentFlushes = 32;

/** Windows flushes only files that are open for writing. */
const flushMode = process.platform === "win32" ? "r+" : openFlags;

/** Flushes the bytes of files. Skips missing files. */
export async function syncFiles(paths: Iterable<string>): Promise<void> {
  await syncEach(paths, async (path) => {
    await using file = await open(path, flushMode);
    await file.datasync();
  });
}

/** Calls `sync` for each path, several at a time. Skips what is missing. */
async function syncEach(
  paths: Iterable<string>,
  sync: (path: string) => Promise<void>,
): Promise<void> {
  const deferred: string[] = [];
  const syncIfPresent = async (path: string) => {
    try {
      await sync(path);
    } catch (error) {
      if (systemCode(error) !== "ENOENT") throw error;
    }
  };
  await forEachConcurrent(paths, maxConcurrentFlushes, async (path) => {
    try {
      await syncIfPresent(path);
    } catch (error) {
      if (!isExhausted(error)) throw error;
      deferred.push(path);
    }
  });
  // The process reached its open-file limit, so the rest is flushed one by one.
  for (const path of deferred) await syncIfPresent(path);
}

/** Flushes the entries of a folder. Windows cannot do that, so nothing happens there. */
export function syncFolder(path: string): void {
  if (process.platform === "win32") return;
  const folder = openSync(path, "r");
  try {
    fsyncSync(folder);
  } finally {
    closeSync(folder);
  }
}

/** Flushes the entries of folders concurrently. Skips missing folders. Does nothing on Windows. */
export async function syncFolders(paths: Iterable<string>): Promise<void> {
  if (process.platform === "win32") return;
  await syncEach(paths, async (path) => {
    await using folder = await open(path, "r");
    await folder.sync();
  });
}
