/** What a journal says of a store that is a copy of one stream of another store. */
import type { Database } from "bun:sqlite";
import { existsSync } from "node:fs";
import { FramesError } from "../../errors.ts";
import type { Journal } from "../journal/journal.ts";
import { journalPath, openReadOnly, readProperty } from "../journal/schema.ts";

/** What a store is a copy of. */
export interface CopyOf {
  readonly stream: string;
  /** Identity of the store that the stream is in, once it is known. */
  readonly identity?: string | undefined;
  /** Where that is, for people. */
  readonly from?: string | undefined;
}

/** What the journal says that its store is a copy of. */
export function readCopyOf(journal: Pick<Journal, "property">): CopyOf | undefined {
  const text = journal.property("copy");
  return text === undefined ? undefined : (JSON.parse(text) as CopyOf);
}

/** The stream that a store is a copy of, if it is one. */
export function readCopiedStream(journal: Pick<Journal, "property">): string | undefined {
  return readCopyOf(journal)?.stream;
}

/**
 * A store stays what it was made as: a copy of that stream, or no copy.
 *
 * @param wanted what it is opened as
 * @throws {FramesError} `usage` if it is something else
 */
export function checkCopy(location: string, journal: Journal, wanted: CopyOf | undefined): void {
  const found = readCopyOf(journal);
  if (found === undefined && wanted === undefined) return;
  if (wanted === undefined) {
    throw new FramesError(
      "usage",
      `Cannot serve ${location}: it is a copy of the stream ${found!.stream}, which frames receive made; name another directory`,
    );
  }
  if (found === undefined) {
    if (journal.hasFrames) {
      throw new FramesError(
        "usage",
        `Cannot receive into ${location}: it is a store with streams of its own; name another directory`,
      );
    }
    journal.setProperty("copy", JSON.stringify(wanted));
    journal.flush();
    return;
  }
  if (found.stream === wanted.stream) return;
  throw new FramesError(
    "usage",
    `Cannot receive ${wanted.stream} into ${location}: it is a copy of the stream ${found.stream}; name another directory`,
  );
}

/** The stream that `frames receive` has copied into a directory, if it is such a copy. */
export function findCopiedStream(directory: string): string | undefined {
  const path = journalPath(directory);
  if (!existsSync(path)) return undefined;
  let database: Database | undefined;
  try {
    const opened = (database = openReadOnly(path));
    return readCopiedStream({ property: (name) => readProperty(opened, name) });
  } catch {
    // Whoever cannot read it takes the directory for one of frames, which it is as well.
    return undefined;
  } finally {
    database?.close();
  }
}
