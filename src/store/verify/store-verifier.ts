/** Compares the frames of a store of any kind with its journal, and reports problems. */
import type { Database } from "bun:sqlite";
import { rowChecks, type UncheckedRow } from "../journal/row-check.ts";
import { hasColumn } from "../journal/schema.ts";
import { type FramePath, framePath } from "../paths.ts";
import { isWholeFrame } from "./check-journal.ts";

/** Options of a verification. */
export interface VerifyOptions {
  /**
   * Move damaged frames to `.frames/damaged` and delete their rows. Rebuild the journal if it is
   * malformed.
   */
  readonly repair?: boolean;
  /**
   * Accept the reported losses and the unchecked frames. Later verifications do not report them.
   */
  readonly accept?: boolean;
  /** Do not report missing frames, because they were moved away on purpose. */
  readonly ignoreMissing?: boolean;
  /** Called for each problem. */
  readonly onFinding?: (finding: Finding) => void;
  /** Called regularly with the progress. */
  readonly onProgress?: (progress: VerifyProgress) => void;
}

/** A problem that was found. */
export interface Finding {
  readonly kind: "missing" | "damaged" | "unknown" | "unchecked" | "lost";
  readonly stream: string;
  readonly source: string;
  /** Path of the frame below the store, or the frames or lost numbers of a source. */
  readonly what: string;
  readonly why: string;
}

/** Progress of a verification. */
export interface VerifyProgress {
  readonly total: number;
  readonly frames: number;
  readonly bytes: number;
}

/** Result of a verification. */
export interface Verification extends VerifyProgress {
  readonly missing: number;
  readonly damaged: number;
  readonly unknown: number;
  /** Frames with a row that was made from their file, so that damage before it is not noticed. */
  readonly unchecked: number;
  /** Reports of lost numbers. One report may cover several numbers. */
  readonly lost: number;
  /** Reports of lost numbers whose frame came later. */
  readonly cameLater: number;
  /** Reports of lost numbers that were accepted. */
  readonly accepted: number;
  /** Rows of the rebuilt journal. Undefined if it was not rebuilt. */
  readonly rebuilt: number | undefined;
}

/** A row of `frames` that is not damaged. */
export interface JournalRow extends FramePath {
  readonly id: number;
  readonly session: string;
  readonly seq: number;
  readonly bytes: number;
  readonly crc32: number;
}

interface JournalLossRow {
  readonly stream: string;
  readonly source: string;
  readonly first: bigint;
  readonly last: bigint;
  readonly reason: string;
  readonly name: string | null;
  readonly state: string | null;
}

/** Source that a problem concerns. Both names are empty for a problem of the journal itself. */
type FindingSource = Pick<Finding, "stream" | "source">;

/** Frames read concurrently. */
export const maxConcurrentReads = 16;

/** Rows per query. Small pages keep read transactions short while a server writes the journal. */
const rowBatchSize = 1000;

/** Why a frame counts as damaged. */
export const otherBytesReason = "its bytes changed after they were stored";
export const sizeReason = (found: number, { bytes }: Pick<JournalRow, "bytes">) =>
  `it has ${found} bytes, not ${bytes}`;

/** What the verification of every store shares: rows, counts and reports. */
export class StoreVerifier {
  protected readonly journal: Database;
  protected readonly options: VerifyOptions;
  /** Stream that the store is a copy of, if it is one. */
  protected readonly copiedStream: string | undefined;
  protected readonly counts = {
    missing: 0,
    damaged: 0,
    unknown: 0,
    unchecked: 0,
    lost: 0,
    cameLater: 0,
    accepted: 0,
  };
  /** Highest id of a row when the verification began. */
  protected readonly lastId: number;
  readonly #total: number;
  readonly #find;
  #frames = 0;
  #bytes = 0;

  constructor(journal: Database, options: VerifyOptions, copiedStream?: string) {
    this.journal = journal;
    this.options = options;
    this.copiedStream = copiedStream;
    this.#find = journal.query<{ id: number; bytes: number; crc32: number }, string[]>(
      "SELECT id, bytes, crc32 FROM frames WHERE stream = ? AND source = ? AND name = ?",
    );
    const { total, last } = journal
      .query<{ total: number; last: number | null }, []>(
        "SELECT count(*) AS total, max(id) AS last FROM frames",
      )
      .get()!;
    this.#total = total;
    this.lastId = last ?? 0;
  }

  protected get progress(): VerifyProgress {
    return { total: this.#total, frames: this.#frames, bytes: this.#bytes };
  }

  /** Counts a frame that was looked at, or takes it back with -1. */
  protected countFrame({ bytes }: Pick<JournalRow, "bytes">, by: 1 | -1 = 1): void {
    this.#frames += by;
    this.#bytes += by * bytes;
  }

  protected report(
    kind: Finding["kind"],
    { stream, source }: FindingSource,
    what: string,
    why: string,
  ): void {
    this.counts[kind]++;
    this.options.onFinding?.({ kind, stream, source, what, why });
  }

  protected reportMissing(frame: FramePath, why: string): void {
    if (this.options.ignoreMissing === true) return;
    this.report("missing", frame, framePath(frame.stream, frame.source, frame.name), why);
  }

  protected findRow({ stream, source, name }: FramePath) {
    return this.#find.get(stream, source, name) ?? undefined;
  }

  /** Yields the rows that are not damaged, up to the id `lastId`. */
  protected *rows(lastId = Number.MAX_SAFE_INTEGER): Generator<JournalRow> {
    const page = this.journal
      .query<Record<keyof JournalRow, bigint>, [number, number]>(
        `SELECT * FROM frames WHERE id > ? AND id <= ? ORDER BY id LIMIT ${rowBatchSize}`,
      )
      .safeIntegers(true);
    for (let after = 0; ;) {
      const rows = page.all(after, lastId);
      if (rows.length === 0) return;
      for (const row of rows) {
        if (isWholeFrame(row, this.copiedStream)) yield toJournalRow(row);
      }
      after = Number(rows.at(-1)!.id);
      this.options.onProgress?.(this.progress);
    }
  }

  /**
   * Reports frames that still have no row. A server stores a frame just before it commits the row,
   * so the journal is looked at again.
   */
  protected reportUnknown(frames: readonly FramePath[]): void {
    for (const frame of frames) {
      if (this.findRow(frame) !== undefined) continue;
      const path = framePath(frame.stream, frame.source, frame.name);
      this.report("unknown", frame, path, "it is not in the journal");
    }
  }

  /** Reports lost numbers, and counts those that need no attention any more. */
  protected findLost(): void {
    const columns = hasColumn(this.journal, "losses", "state")
      ? "name, state"
      : "NULL AS name, NULL AS state";
    const losses = this.journal
      .query<JournalLossRow, []>(
        `SELECT stream, source, session, first, last, reason, at, ${columns} FROM losses ORDER BY rowid`,
      )
      .safeIntegers(true);
    for (const row of losses.iterate()) {
      if (!rowChecks.losses(row)) continue;
      const { stream, source, first, last, reason, name, state } = row;
      if (state === "came") this.counts.cameLater++;
      else if (state === "accepted") this.counts.accepted++;
      else {
        const numbers = first === last ? `number ${first}` : `numbers ${first} to ${last}`;
        const path = name === null ? `${stream}/${source}` : framePath(stream, source, name);
        this.report("lost", { stream, source }, `${path}, ${numbers}`, reason);
      }
    }
  }
}

/** Converts a row that `rowChecks` accepts. */
function toJournalRow(row: UncheckedRow): JournalRow {
  const { stream, source, session, name } = row as unknown as JournalRow;
  const [id, seq, bytes, crc] = [row.id, row.seq, row.bytes, row.crc32].map(Number);
  return { id: id!, stream, source, session, seq: seq!, name, bytes: bytes!, crc32: crc! };
}
