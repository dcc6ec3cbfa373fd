/** Numbers that are missing from a stream, from the journal of its store alone. */
import type { Database } from "bun:sqlite";
import { hasTable, journalError, journalPath, openReadOnly } from "./schema.ts";

/** Numbers of one source in one session that never came. */
export interface SequenceGap {
  readonly source: string;
  readonly session: string;
  readonly first: number;
  readonly last: number;
  /** Name of the error that the sender, or the server, gave for it; nothing if nobody said anything. */
  readonly reason: string | undefined;
  /** When it was told, or else when the next number came that is known. Nanoseconds since 1970. */
  readonly at: bigint;
}

interface GapRow {
  source: string;
  session: string;
  first: bigint;
  last: bigint;
  reason: string | null;
  at: bigint;
}

/** What is known of numbers, as ranges; what was accounted for tells nothing of its own. */
const knownNumbersQuery = `
  SELECT source, session, seq AS first, seq AS last, received AS at FROM frames WHERE stream = ?1
  UNION ALL SELECT source, session, first, last, at FROM losses WHERE stream = ?1
  UNION ALL SELECT source, session, first, last, at FROM accounted WHERE stream = ?1`;

/** One pass over what is known, in order: a range that begins after all before it have ended shows a gap. */
const gapsQuery = `
  WITH known AS (${knownNumbersQuery}),
    ordered AS (
      SELECT source, session, first, at, max(last) OVER (
        PARTITION BY source, session ORDER BY first, last
        ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
      ) AS reached FROM known
    ),
    gaps AS (
      SELECT source, session, coalesce(reached, 0) + 1 AS first, first - 1 AS last, NULL AS reason, at
        FROM ordered WHERE first > coalesce(reached, 0) + 1
      UNION ALL SELECT source, session, first, last, reason, at FROM losses WHERE stream = ?1
    )
  SELECT source, session, first, last, reason, at FROM gaps
    ORDER BY source, min(at) OVER (PARTITION BY source, session), session, first, last`;

/** Journals from before numbers were accounted for tell of losses only. */
const legacyGapsQuery = `SELECT source, session, first, last, reason, at FROM losses WHERE stream = ?1
  ORDER BY source, session, first, last`;

/**
 * The gaps of a stream in the store in `directory`: of each source its sessions in the order in which they
 * had the first, of each session the numbers from 1 to the highest that is known of. They are read one by one.
 *
 * @throws {FramesError} `store` if the journal cannot be read
 */
export function* readGaps(directory: string, stream: string): Generator<SequenceGap> {
  const path = journalPath(directory);
  let database: Database | undefined;
  try {
    database = openReadOnly(path);
    const rows = database
      .query<GapRow, [string]>(hasTable(database, "accounted") ? gapsQuery : legacyGapsQuery)
      .safeIntegers(true)
      .iterate(stream);
    for (const { first, last, reason, ...row } of rows) {
      yield { ...row, first: Number(first), last: Number(last), reason: reason ?? undefined };
    }
  } catch (error) {
    throw journalError("read", path, error);
  } finally {
    database?.close();
  }
}
