/**
 * What the objects of a bucket's journal hold (BUCKET.md): links of a session's chain, one for each batch,
 * and segments, into which links are merged. Both are gzip of JSON lines, in one member or several.
 */
import { createGunzip, gzipSync } from "node:zlib";
import { FramesError } from "../errors.ts";
import type { FrameRow } from "./schema.ts";

/** Names the format, and its version. */
export const format = "frames-journal/1";

/** Whose rows follow, and which links of its chain they were in. */
export interface LinkHeader {
  readonly session: string;
  /** Numbers of the first and the last link, which agree in a link. */
  readonly first: number;
  readonly last: number;
  /** The process that wrote it. */
  readonly node: string;
}

/** Whose numbers an entry is about. */
export interface EntryOrigin {
  readonly stream: string;
  readonly source: string;
  readonly key: string | null;
  readonly format: string | null;
}

/** A thing that a journal records. Times are nanoseconds since 1970. */
export type Entry = { readonly origin: EntryOrigin } & (
  | ({ readonly kind: "frame"; readonly etag: string } & Omit<
      FrameRow,
      "stream" | "source" | "session" | "key" | "format"
    >)
  | { readonly kind: "loss"; first: number; last: number; reason: string; at: bigint }
  | { readonly kind: "account"; first: number; last: number; at: bigint }
);

/** An entry, and the session that it is of; without one, that a part begins. */
export interface Told {
  readonly header: LinkHeader;
  readonly entry: Entry | undefined;
}

/** The bytes of a link, or of a part of a segment. */
export function encodeEntries(header: LinkHeader, entries: Iterable<Entry>): Uint8Array {
  const lines = [JSON.stringify({ format, ...header })];
  let origin: EntryOrigin | undefined;
  for (const entry of entries) {
    if (origin === undefined || !isSameOrigin(origin, entry.origin)) {
      origin = entry.origin;
      lines.push(JSON.stringify(["o", origin.stream, origin.source, origin.key, origin.format]));
    }
    lines.push(JSON.stringify(fieldsOf(entry)));
  }
  lines.push(JSON.stringify(["e", lines.length - 1]), "");
  return gzipSync(lines.join("\n"), { level: 1 });
}

/** Whether two entries are about the numbers of one source. */
export function isSameOrigin(a: EntryOrigin, b: EntryOrigin): boolean {
  return (
    a === b ||
    (a.stream === b.stream && a.source === b.source && a.key === b.key && a.format === b.format)
  );
}

function fieldsOf(entry: Entry): unknown[] {
  switch (entry.kind) {
    case "frame": {
      const { name, seq, bytes, crc32, captured, received, etag, meta } = entry;
      const fields = ["f", name, seq, bytes, crc32, `${captured}`, `${received}`, etag];
      return meta === null ? fields : [...fields, meta];
    }
    case "loss":
      return ["l", entry.first, entry.last, entry.reason, `${entry.at}`];
    case "account":
      return ["a", entry.first, entry.last, `${entry.at}`];
  }
}

/**
 * Reads what a link or a segment holds, a piece at a time.
 *
 * @param path of the object, for people
 * @throws {FramesError} `store` if it is damaged or of a later version
 */
export async function* decodeEntries(
  path: string,
  bytes: Uint8Array,
): AsyncGenerator<Told[], void> {
  const lines = new LineReader(path);
  try {
    const unzip = createGunzip({ chunkSize: 64 << 10 });
    unzip.end(bytes);
    const decoder = new TextDecoder("utf-8", { fatal: true });
    let rest = "";
    for await (const chunk of unzip as AsyncIterable<Uint8Array>) {
      const parts = (rest + decoder.decode(chunk, { stream: true })).split("\n");
      rest = parts.pop()!;
      if (rest.length > longestLine) throw new Error("a line is too long");
      yield parts.flatMap((line) => lines.read(line));
    }
    if (rest !== "") throw new Error("it is cut off");
    lines.end();
  } catch (error) {
    throw damaged(path, error);
  }
}

/** Metadata has 4 KiB at most, a name 255 bytes. */
const longestLine = 64 << 10;

function damaged(path: string, error: unknown): FramesError {
  if (error instanceof FramesError) return error;
  const said = error instanceof Error ? error.message : String(error);
  return new FramesError("store", `Cannot read the bucket's journal: ${path} is damaged: ${said}`, {
    cause: error,
  });
}

/** Gives each line its meaning. */
class LineReader {
  readonly #path: string;
  #header: LinkHeader | undefined;
  #origin: EntryOrigin | undefined;
  #count = 0;

  constructor(path: string) {
    this.#path = path;
  }

  read(line: string): Told[] {
    const value: unknown = JSON.parse(line);
    if (!Array.isArray(value)) return this.#begin(value);
    const header = this.#header;
    if (header === undefined) throw new Error("a line is without a header");
    if (value[0] === "e") {
      if (value[1] !== this.#count) throw new Error("lines are missing");
      this.#header = undefined;
      return [];
    }
    this.#count++;
    if (value[0] === "o") {
      const [, stream, source, key, format] = value as unknown[];
      this.#origin = {
        stream: text(stream),
        source: text(source),
        key: maybe(key),
        format: maybe(format),
      };
      return [];
    }
    const origin = this.#origin;
    if (origin === undefined) throw new Error("an entry is without an origin");
    const entry = entryOf(origin, value);
    return entry === undefined ? [] : [{ header, entry }];
  }

  #begin(value: unknown): Told[] {
    if (this.#header !== undefined) throw new Error("lines are missing");
    const given = value as Record<string, unknown>;
    if (given["format"] !== format) {
      throw new FramesError(
        "store",
        `Cannot read the bucket's journal: ${this.#path} is of a later version: take a later frames`,
      );
    }
    const [first, last] = [number(given["first"]), number(given["last"])];
    this.#header = { session: text(given["session"]), node: text(given["node"]), first, last };
    this.#origin = undefined;
    this.#count = 0;
    return [{ header: this.#header, entry: undefined }];
  }

  end(): void {
    if (this.#header !== undefined) throw new Error("it is cut off");
  }
}

/** What a line says; nothing if it is of a kind that came later. */
function entryOf(origin: EntryOrigin, value: readonly unknown[]): Entry | undefined {
  const [kind, ...fields] = value;
  if (kind === "f") {
    const [name, seq, bytes, crc32, captured, received, etag, meta] = fields;
    return {
      kind: "frame",
      origin,
      name: text(name),
      seq: number(seq),
      bytes: number(bytes),
      crc32: number(crc32),
      captured: BigInt(text(captured)),
      received: BigInt(text(received)),
      etag: text(etag),
      meta: meta === undefined ? null : text(meta),
    };
  }
  const [first, last, ...rest] = fields;
  if (kind === "l") {
    const [reason, at] = rest;
    return {
      kind: "loss",
      origin,
      first: number(first),
      last: number(last),
      reason: text(reason),
      at: BigInt(text(at)),
    };
  }
  if (kind === "a") {
    return {
      kind: "account",
      origin,
      first: number(first),
      last: number(last),
      at: BigInt(text(rest[0])),
    };
  }
  return undefined;
}

function text(value: unknown): string {
  if (typeof value !== "string") throw new Error("a text is missing");
  return value;
}

function maybe(value: unknown): string | null {
  return value === null ? null : text(value);
}

function number(value: unknown): number {
  if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0) {
    throw new Error("a number is missing");
  }
  return value;
}
