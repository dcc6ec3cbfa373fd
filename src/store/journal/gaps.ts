/** Lists the missing numbers of a stream, from the journal alone. */
import type { Database } from "bun:sqlite";
import { rowChecks } from "./row-check.ts";
import { hasColumn, hasTable, journalError, journalPath, openReadOnly } from "./schema.ts";

/** Missing numbers of one source in one session. */
export interface SequenceGap {
  readonly source: string;
  readonly session: string;
  readonly first: number;
  readonly last: number;
  /** Error code that the sender or the server gave for the loss. Undefined if none was reported. */
  readonly reason: string | undefined;
  /**
   * Time of the report. Without a report, the arrival time of the next known number. In nanoseconds
   * since 1970.
   */
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

/**
 * Known numbers as ranges, without those of damaged rows. Losses count as known here, because they
 * are listed separately.
 */
const knownNumbersQuery = `
  SELECT * FROM (
    SELECT source, session, seq AS first, seq AS last, received AS at FROM frames WHERE stream = ?1
    UNION ALL SELECT source, session, first, last, at FROM losses WHERE stream = ?1
    UNION ALL SELECT source, session, first, last, at FROM accounted WHERE stream = ?1
  ) WHERE typeof(first) = 'integer' AND typeof(last) = 'integer' AND typeof(at) = 'integer'
    AND first >= 0 AND last BETWEEN first AND ${Number.MAX_SAFE_INTEGER}`;

/**
 * Finds gaps in one ordered pass. A gap ends where a range begins after all earlier ranges have
 * ended.
 */
const gapsQuery = (openLosses: string) => `
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
      UNION ALL SELECT source, session, first, last, reason, at FROM losses
          WHERE stream = ?1 ${openLosses}
    )
  SELECT source, session, first, last, reason, at FROM gaps
    ORDER BY source, min(at) OVER (PARTITION BY source, session), session, first, last`;

/**
 * For journals without the table `accounted`. Their other gaps are unknown, so only losses are
 * listed.
 */
const legacyGapsQuery = `SELECT source, session, first, last, reason, at FROM losses WHERE stream = ?1
  ORDER BY source, session, first, last`;

/**
 * Yields the gaps of a stream in the store in `directory`, one by one. Gaps are sorted by source,
 * then by the time of the session's first gap, then by number. They lie between 1 and the highest
 * known number of each session.
 *
 * @throws {FramesError} `store` if the journal cannot be read
 */
export function* readGaps(directory: string, stream: string): Generator<SequenceGap> {
  const path = journalPath(directory);
  let database: Database | undefined;
  try {
    database = openReadOnly(path);
    // A frame that came later is not lost. Journals of earlier versions do not say so.
    const openLosses = hasColumn(database, "losses", "state") ? "AND state IS NOT 'came'" : "";
    const rows = database
      .query<GapRow, [string]>(
        hasTable(database, "accounted") ? gapsQuery(openLosses) : legacyGapsQuery,
      )
      .safeIntegers(true)
      .iterate(stream);
    for (const { first, last, reason, ...row } of rows) {
      const loss = { stream, first, last, reason: reason ?? "unknown", ...row };
      if (!rowChecks.losses(loss)) continue;
      yield { ...row, first: Number(first), last: Number(last), reason: reason ?? undefined };
    }
  } catch (error) {
    throw journalError("read", path, error);
  } finally {
    database?.close();
  }
}
