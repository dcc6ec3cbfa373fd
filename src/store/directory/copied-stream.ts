/** Reads and checks the journal's property `copy`, which marks a store as a copy of one stream. */
import type { Database } from "bun:sqlite";
import { existsSync } from "node:fs";
import { usageError } from "../../errors.ts";
import type { Journal } from "../journal/journal.ts";
import { journalPath, openReadOnly, readProperty } from "../journal/schema.ts";

/** Describes the stream that a store is a copy of. */
export interface CopyOf {
  readonly stream: string;
  /** Identity of the original store. Undefined until the server reports it. */
  readonly identity?: string | undefined;
  /** Address of the original store, for messages. */
  readonly from?: string | undefined;
}

/** Returns what the store is a copy of, or undefined if it is no copy. */
export function readCopyOf(journal: Pick<Journal, "property">): CopyOf | undefined {
  const text = journal.property("copy");
  return text === undefined ? undefined : (JSON.parse(text) as CopyOf);
}

/** Returns the stream that a store is a copy of, or undefined if it is no copy. */
export function readCopiedStream(journal: Pick<Journal, "property">): string | undefined {
  return readCopyOf(journal)?.stream;
}

/**
 * Checks that a store is opened as what it was created as. Marks an empty store as a copy if that
 * is wanted.
 *
 * @param wanted the copy to open, or undefined for a store that is no copy
 * @throws {FramesError} `usage` if the store is something else
 */
export function checkCopy(location: string, journal: Journal, wanted: CopyOf | undefined): void {
  const found = readCopyOf(journal);
  if (found === undefined && wanted === undefined) return;
  if (wanted === undefined) {
    throw usageError(
      `Cannot serve ${location}: it is a copy of the stream ${found!.stream}, made by frames receive; choose another directory`,
    );
  }
  if (found === undefined) {
    if (journal.hasFrames) {
      throw usageError(
        `Cannot receive into ${location}: it is the store of a server; choose another directory`,
      );
    }
    journal.setProperty("copy", JSON.stringify(wanted));
    journal.flush();
    return;
  }
  if (found.stream === wanted.stream) return;
  throw usageError(
    `Cannot receive ${wanted.stream} into ${location}: it is a copy of the stream ${found.stream}; choose another directory`,
  );
}

/**
 * Returns the stream that `frames receive` copied into a directory, or undefined if it is no copy.
 */
export function findCopiedStream(directory: string): string | undefined {
  const path = journalPath(directory);
  if (!existsSync(path)) return undefined;
  let database: Database | undefined;
  try {
    const opened = (database = openReadOnly(path));
    return readCopiedStream({ property: (name) => readProperty(opened, name) });
  } catch {
    // A directory with an unreadable journal is treated as a directory of frames.
    return undefined;
  } finally {
    database?.close();
  }
}
