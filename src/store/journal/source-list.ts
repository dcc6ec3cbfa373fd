/** Lists the sources of a store, from its journal. */
import type { Database } from "bun:sqlite";
import { existsSync } from "node:fs";
import { FramesError } from "../../errors.ts";
import { countedBytes, countedLosses, isSource } from "./row-check.ts";
import { hasColumn, journalError, journalPath, openReadOnly } from "./schema.ts";

/** Totals of one source. Times are nanoseconds since 1970. */
export interface SourceSummary {
  readonly stream: string;
  readonly source: string;
  readonly frames: number;
  readonly bytes: number;
  readonly lost: number;
  readonly firstCaptured: bigint | null;
  readonly lastCaptured: bigint | null;
}

const isTimeSql = "typeof(captured) = 'integer'";

/**
 * Returns the totals of each source in the store in `directory`, sorted by name. A server may use
 * the store at the same time. Sources with a damaged name are left out.
 *
 * @param stream default: all streams
 * @throws {FramesError} `missing` if there is no journal, `store` if it cannot be read
 */
export function listSources(directory: string, stream?: string): SourceSummary[] {
  const path = journalPath(directory);
  if (!existsSync(path)) {
    const reason = existsSync(directory) ? "it is not a store of frames" : "no such directory";
    throw new FramesError(
      "missing",
      `Cannot list ${directory}: ${reason}; name the store with --dir DIR`,
    );
  }
  let database: Database | undefined;
  try {
    database = openReadOnly(path);
    const condition = stream === undefined ? "" : "WHERE stream = ?1";
    // Journals of earlier versions have no states.
    const openLosses = hasColumn(database, "losses", "state")
      ? "(SELECT * FROM losses WHERE state IS NOT 'came')"
      : "losses";
    return database
      .query<SourceSummaryRow, string[]>(
        `SELECT stream, source, sum(frames) AS frames, CAST(total(bytes) AS INTEGER) AS bytes,
            CAST(total(lost) AS INTEGER) AS lost,
            min(firstCaptured) AS firstCaptured, max(lastCaptured) AS lastCaptured
          FROM (
            SELECT stream, source, count(*) AS frames, total(${countedBytes}) AS bytes, 0 AS lost,
                min(captured) FILTER (WHERE ${isTimeSql}) AS firstCaptured,
                max(captured) FILTER (WHERE ${isTimeSql}) AS lastCaptured
              FROM frames ${condition} GROUP BY stream, source
            UNION ALL
            SELECT stream, source, 0, 0, min(total(${countedLosses}), 9007199254740991), NULL, NULL
              FROM ${openLosses} ${condition} GROUP BY stream, source
          )
          GROUP BY stream, source ORDER BY stream, source`,
      )
      .safeIntegers(true)
      .all(...(stream === undefined ? [] : [stream]))
      .filter(isSource)
      .map((row) => ({
        ...row,
        frames: Number(row.frames),
        bytes: Number(row.bytes),
        lost: Number(row.lost),
      }));
  } catch (error) {
    throw journalError("read", path, error);
  } finally {
    database?.close();
  }
}

type SourceSummaryRow = {
  [Column in keyof SourceSummary]: SourceSummary[Column] extends number
    ? bigint
    : SourceSummary[Column];
};
