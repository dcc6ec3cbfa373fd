/**
 * Encodes and decodes the objects of a bucket's journal (BUCKET.md, section 3). A log object holds
 * one batch of a session. A segment holds merged log objects. Both are JSON lines in one or more
 * gzip members.
 */
import { createGunzip, gzipSync } from "node:zlib";
import { FramesError } from "../../errors.ts";
import { isSession } from "../../common/row-values.ts";
import { rowChecks } from "../journal/row-check.ts";
import type { FrameRow } from "../journal/schema.ts";
import type { SessionOwner } from "../session-owner.ts";

/** Name and version of the format. */
export const logFormat = "frames-journal/1";

/** Header of a part: the session of its entries, and the log objects that had them. */
export interface LogHeader {
  readonly session: string;
  /** Numbers of the first and the last log object. Both are equal in a log object itself. */
  readonly first: number;
  readonly last: number;
  /** Id of the process that wrote it. */
  readonly node: string;
}

/** Source that an entry belongs to, with the key and the shape of its frames. */
export interface LogSource extends SessionOwner {
  readonly stream: string;
  readonly source: string;
  readonly format: string | null;
}

/** An entry of the journal. Times are nanoseconds since 1970. */
export type LogEntry = { readonly logSource: LogSource } & (
  | ({ readonly kind: "frame"; readonly etag: string } & Omit<
      FrameRow,
      "stream" | "source" | "session" | "key" | "format"
    >)
  | {
      readonly kind: "loss";
      first: number;
      last: number;
      reason: string;
      at: bigint;
      /** Name of the lost frame, if it is known. */
      name?: string | undefined;
    }
  | { readonly kind: "account"; first: number; last: number; at: bigint }
);

/**
 * An entry with the header of its part. Without an entry, it marks the begin of a part, or a line
 * that no server can have written.
 */
export interface DecodedEntry {
  readonly header: LogHeader;
  readonly entry: LogEntry | undefined;
  /** Number of the damaged line in its object, from 1. */
  readonly damagedLine?: number;
}

/** Encodes a log object, or one part of a segment. */
export function encodeEntries(header: LogHeader, entries: Iterable<LogEntry>): Uint8Array {
  const lines = [JSON.stringify({ format: logFormat, ...header })];
  let logSource: LogSource | undefined;
  let isKey: number | null = null;
  for (const entry of entries) {
    if (logSource === undefined || !isSameLogSource(logSource, entry.logSource)) {
      logSource = entry.logSource;
      const { stream, source, key, format, keyId } = logSource;
      const fields = ["o", stream, source, key, format];
      lines.push(JSON.stringify(keyId === null ? fields : [...fields, keyId]));
    }
    if (entry.kind === "frame" && entry.is_key !== isKey) {
      isKey = entry.is_key;
      lines.push(JSON.stringify(["k", isKey]));
    }
    lines.push(JSON.stringify(fieldsOf(entry)));
  }
  lines.push(JSON.stringify(["e", lines.length - 1]), "");
  return gzipSync(lines.join("\n"), { level: 1 });
}

/** Returns whether two entries belong to the same source. */
export function isSameLogSource(a: LogSource, b: LogSource): boolean {
  return (
    a === b ||
    (a.stream === b.stream &&
      a.source === b.source &&
      a.key === b.key &&
      a.keyId === b.keyId &&
      a.format === b.format)
  );
}

function fieldsOf(entry: LogEntry): unknown[] {
  switch (entry.kind) {
    case "frame": {
      const { name, seq, bytes, crc32, captured, received, etag, meta } = entry;
      const fields = ["f", name, seq, bytes, crc32, `${captured}`, `${received}`, etag];
      return meta === null ? fields : [...fields, meta];
    }
    case "loss": {
      const fields = ["l", entry.first, entry.last, entry.reason, `${entry.at}`];
      return entry.name === undefined ? fields : [...fields, entry.name];
    }
    case "account":
      return ["a", entry.first, entry.last, `${entry.at}`];
  }
}

/**
 * Decodes a log object or a segment in chunks.
 *
 * @param path of the object, for messages
 * @throws {FramesError} `store` if it is damaged or of a later version
 */
export async function* decodeEntries(
  path: string,
  bytes: Uint8Array,
): AsyncGenerator<DecodedEntry[], void> {
  const lines = new EntryParser(path);
  const maxLength = minMaxLength + bytes.length * maxCompression;
  const maxLines = minMaxLines + bytes.length;
  let [length, lineCount] = [0, 0];
  try {
    const unzip = createGunzip({ chunkSize: 64 << 10 });
    unzip.end(bytes);
    const decoder = new TextDecoder("utf-8", { fatal: true });
    let rest = "";
    for await (const chunk of unzip as AsyncIterable<Uint8Array>) {
      const parts = (rest + decoder.decode(chunk, { stream: true })).split("\n");
      length += chunk.length;
      lineCount += parts.length - 1;
      if (length > maxLength || lineCount > maxLines) {
        throw new Error("it expands to more than any journal");
      }
      rest = parts.pop()!;
      if (rest.length > maxLineLength) throw new Error("a line is too long");
      yield parts.flatMap((line) => lines.read(line));
    }
    if (rest !== "") throw new Error("it is cut off");
    lines.end();
  } catch (error) {
    throw damagedError(path, error);
  }
}

/**
 * Limits what an object expands to. Lines of a journal have numbers of their own, so that a line
 * takes at least four bytes of gzip and expands ten times; gzip could do a thousand times.
 */
const maxCompression = 100;
const minMaxLength = 1 << 20;
/** More lines than this need one byte of gzip each. */
const minMaxLines = 10_000;

/** Longest line, in UTF-16 units. Metadata has at most 4 KiB and a name 255 bytes. */
const maxLineLength = 64 << 10;

/** The error `store` for an object that no server can have written. */
export class DamagedLogError extends FramesError {
  constructor(path: string, reason: string, options?: ErrorOptions) {
    super("store", `Cannot read the bucket's journal: ${path} is damaged: ${reason}`, options);
  }
}

function damagedError(path: string, error: unknown): FramesError {
  if (error instanceof FramesError) return error;
  const reason = error instanceof Error ? error.message : String(error);
  return new DamagedLogError(path, reason, { cause: error });
}

/** Parses the lines of an object and checks that no part is cut short. */
class EntryParser {
  readonly #path: string;
  #header: LogHeader | undefined;
  #logSource: LogSource | undefined;
  /** Value of `is_key` for the following frames. */
  #isKey: number | null = null;
  #count = 0;
  #lineNumber = 0;

  constructor(path: string) {
    this.#path = path;
  }

  read(line: string): DecodedEntry[] {
    this.#lineNumber++;
    const value: unknown = JSON.parse(line);
    if (!Array.isArray(value)) return this.#parseHeader(value);
    const header = this.#header;
    if (header === undefined) throw new Error("a line has no header");
    if (value[0] === "e") {
      if (value[1] !== this.#count) throw new Error("lines are missing");
      this.#header = undefined;
      return [];
    }
    this.#count++;
    if (value[0] === "o") {
      // Earlier versions write no id of the key.
      const [, stream, source, key, format, keyId = null] = value as unknown[];
      this.#logSource = {
        stream: parseText(stream),
        source: parseText(source),
        key: parseOptionalText(key),
        keyId: parseOptionalText(keyId),
        format: parseOptionalText(format),
      };
      return [];
    }
    if (value[0] === "k") {
      this.#isKey = value[1] === 0 || value[1] === 1 ? value[1] : null;
      return [];
    }
    const logSource = this.#logSource;
    if (logSource === undefined) throw new Error("an entry has no source");
    const entry = checkedEntry(header, logSource, this.#isKey, value);
    if (entry === undefined) return [];
    if (entry !== "damaged") return [{ header, entry }];
    return [{ header, entry: undefined, damagedLine: this.#lineNumber }];
  }

  #parseHeader(value: unknown): DecodedEntry[] {
    if (this.#header !== undefined) throw new Error("lines are missing");
    const fields = value as Record<string, unknown>;
    if (fields["format"] !== logFormat) {
      throw new FramesError(
        "store",
        `Cannot read the bucket's journal: ${this.#path} was written by a later version; install the latest frames`,
      );
    }
    const [first, last] = [parseNumber(fields["first"]), parseNumber(fields["last"])];
    const { session } = fields;
    if (!isSession(session)) throw new Error("its session is not valid");
    if (first > last || last > maxLogNumber) throw new Error("its numbers are not valid");
    this.#header = {
      session,
      node: parseText(fields["node"]),
      first,
      last,
    };
    this.#logSource = undefined;
    this.#isKey = null;
    this.#count = 0;
    return [{ header: this.#header, entry: undefined }];
  }

  end(): void {
    if (this.#header !== undefined) throw new Error("it is cut off");
  }
}

/** Highest number of a log object: ten digits, as in its key. */
const maxLogNumber = 9_999_999_999;

/** Returns whether a server can have written an entry. The rules are those of a journal's rows. */
function isRightEntry({ session }: LogHeader, entry: LogEntry): boolean {
  const { keyId, ...logSource } = entry.logSource;
  const row = { session, ...logSource, key_id: keyId, ...integersOf(entry) };
  if (!rowChecks.sessions(row)) return false;
  switch (entry.kind) {
    case "frame":
      return rowChecks.frames(row);
    case "loss":
      return rowChecks.losses(row);
    case "account":
      return rowChecks.accounted(row);
  }
}

/** Returns the fields of an entry, with bigints for numbers. */
function integersOf(entry: LogEntry): Readonly<Record<string, unknown>> {
  const fields = Object.entries(entry);
  return Object.fromEntries(
    fields.map(([name, value]) => [name, typeof value === "number" ? BigInt(value) : value]),
  );
}

/**
 * Parses and checks a line. Returns undefined for an unknown kind, which a later version may have
 * added.
 */
function checkedEntry(
  header: LogHeader,
  logSource: LogSource,
  isKey: number | null,
  value: readonly unknown[],
): LogEntry | "damaged" | undefined {
  try {
    const entry = parseEntry(logSource, isKey, value);
    return entry === undefined || isRightEntry(header, entry) ? entry : "damaged";
  } catch {
    return "damaged";
  }
}

/** @throws if a field has another type */
function parseEntry(
  logSource: LogSource,
  isKey: number | null,
  value: readonly unknown[],
): LogEntry | undefined {
  const [kind, ...fields] = value;
  if (kind === "f") {
    const [name, seq, bytes, crc32, captured, received, etag, meta] = fields;
    return {
      kind: "frame",
      logSource,
      name: parseText(name),
      seq: parseNumber(seq),
      bytes: parseNumber(bytes),
      crc32: parseNumber(crc32),
      captured: parseTime(captured),
      received: parseTime(received),
      etag: parseText(etag),
      meta: meta === undefined ? null : parseText(meta),
      is_key: isKey,
    };
  }
  const [first, last, ...rest] = fields;
  if (kind === "l") {
    const [reason, at, name] = rest;
    return {
      kind: "loss",
      logSource,
      first: parseNumber(first),
      last: parseNumber(last),
      reason: parseText(reason),
      at: parseTime(at),
      name: name === undefined ? undefined : parseText(name),
    };
  }
  if (kind === "a") {
    return {
      kind: "account",
      logSource,
      first: parseNumber(first),
      last: parseNumber(last),
      at: parseTime(rest[0]),
    };
  }
  return undefined;
}

function parseText(value: unknown): string {
  if (typeof value !== "string") throw new Error("a text is missing");
  return value;
}

function parseTime(value: unknown): bigint {
  const text = parseText(value);
  if (!/^-?\d{1,19}$/.test(text)) throw new Error("a time is missing");
  return BigInt(text);
}

function parseOptionalText(value: unknown): string | null {
  return value === null ? null : parseText(value);
}

function parseNumber(value: unknown): number {
  if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0) {
    throw new Error("a number is missing");
  }
  return value;
}
