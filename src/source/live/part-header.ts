/**
 * Headers of the frames on a pipe: `frames receive --multipart` writes them and `frames send
 * --multipart` reads them. `frames help pipes` specifies the format.
 */
import { defined } from "../../common/defined.ts";
import { FramesError } from "../../errors.ts";
import type { RawShape } from "../../frame.ts";
import { checkRawSize, formatRawShape, parseRawShape, rawExtension } from "../image/raw.ts";
import { extensionOfType } from "../../common/media-types.ts";
import type { CapturedFrame } from "./iterable-source.ts";

/** First line of each part. */
const boundary = "--frame";

/** Facts about a frame that its header holds. */
export interface PartFacts {
  readonly bytes: Uint8Array;
  readonly source: string;
  readonly sequence: number;
  /** Capture time in nanoseconds since 1970. */
  readonly captured: bigint;
  readonly name: string;
  readonly session: string;
  readonly raw?: RawShape | undefined;
  /** Set for encoded video. */
  readonly isKey?: boolean | undefined;
  /** A JSON object as text, or empty. */
  readonly metadata: string;
}

/** Formats the boundary and the header lines of a part; an empty line ends them. */
export function formatPartHeader(facts: PartFacts): string {
  const { bytes, source, sequence, captured, name, session, raw, isKey, metadata } = facts;
  const nanoseconds = String(captured < 0n ? -captured : captured).padStart(10, "0");
  const seconds = `${nanoseconds.slice(0, -9)}.${nanoseconds.slice(-9)}`;
  const lines = [
    boundary,
    `Content-Length: ${bytes.length}`,
    `X-Source: ${escapeText(source)}`,
    `X-Sequence: ${sequence}`,
    `X-Captured: ${captured}`,
    `X-Timestamp: ${captured < 0n ? "-" : ""}${seconds}`,
    `X-Name: ${escapeText(name)}`,
    `X-Session: ${escapeText(session)}`,
  ];
  if (raw !== undefined) lines.push(`X-Raw: ${escapeText(formatRawShape(raw))}`);
  if (isKey !== undefined) lines.push(`X-Key: ${Number(isKey)}`);
  if (metadata !== "") lines.push(`X-Metadata: ${escapeJson(metadata)}`);
  return `${lines.join("\r\n")}\r\n\r\n`;
}

/** Headers of a part by their names in lower case. */
export type PartHeader = ReadonlyMap<string, string>;

/**
 * Parses the header lines of a part. A later header of the same name precedes an earlier one.
 *
 * @throws {FramesError} `damaged` if a line is not a header
 */
export function parsePartHeader(lines: readonly string[]): PartHeader {
  return new Map(
    lines.map((line) => {
      const [, name, value] = /^([!-9;-~]+):[ \t]*(.*)$/s.exec(line) ?? [];
      if (name === undefined) throw partError(`a header such as X-Source: visible`, line);
      return [name.toLowerCase(), value!];
    }),
  );
}

/**
 * Returns the size of a part in bytes.
 *
 * @throws {FramesError} `damaged` without a valid Content-Length
 */
export function partSize(header: PartHeader): number {
  const text = header.get("content-length");
  const size = text !== undefined && /^\d{1,15}$/.test(text) ? Number(text) : NaN;
  if (Number.isNaN(size)) throw partError("a header Content-Length with the frame's bytes", text);
  return size;
}

/** Returns the error of a pipe whose frames cannot be found any more. */
export function partError(expected: string, found: string | undefined): FramesError {
  const what = found === undefined ? "none" : JSON.stringify(found.slice(0, 60));
  return new FramesError("damaged", `expected ${expected}, found ${what}`);
}

/** Returns the name of a part's source; `undefined` if the header has none. */
export function partSource(header: PartHeader): string | undefined {
  return headerText(header, "x-source");
}

/** Returns the file name of a part; `undefined` if the header has none. */
export function partName(header: PartHeader): string | undefined {
  return headerText(header, "x-name");
}

function headerText(header: PartHeader, line: string): string | undefined {
  const text = header.get(line);
  return text === undefined ? undefined : unescapeText(text);
}

/**
 * Returns what the header says about its frame.
 *
 * @param size bytes of the frame
 * @throws {FramesError} `unreadable` if a value is invalid; the frame is lost then
 */
export function partFrame(header: PartHeader, size: number): Omit<CapturedFrame, "bytes"> {
  const name = partName(header);
  const captured = header.get("x-captured");
  const metadata = header.get("x-metadata");
  const shape = header.get("x-raw");
  const raw = shape === undefined ? undefined : parseShape(shape, size);
  const extension =
    raw === undefined ? extensionOfType(header.get("content-type") ?? "") : rawExtension(raw);
  return defined({
    name,
    captured: captured === undefined ? undefined : parseCaptured(captured),
    metadata: metadata === undefined ? undefined : parseMetadata(metadata),
    raw,
    extension,
  });
}

function parseCaptured(text: string): bigint {
  if (/^-?\d{1,19}$/.test(text) && BigInt.asIntN(64, BigInt(text)) === BigInt(text)) {
    return BigInt(text);
  }
  throw invalidHeader("X-Captured", "nanoseconds since 1970 as a number of 64 bits", text);
}

function parseMetadata(text: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = json.parse(text, keepDigits);
  } catch {
    // Reported below.
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value)) {
    return value as Record<string, unknown>;
  }
  throw invalidHeader("X-Metadata", "a JSON object", text);
}

/** Functions of JSON that TypeScript does not declare yet. */
interface ExactJson {
  parse(
    text: string,
    reviver: (key: string, value: unknown, context: { source?: string }) => unknown,
  ): unknown;
  rawJSON(text: string): unknown;
}

const json = JSON as unknown as ExactJson;

/** Keeps a number that JavaScript would round, such as nanoseconds since 1970, as its text. */
function keepDigits(_key: string, value: unknown, { source }: { source?: string }): unknown {
  if (typeof value !== "number" || String(value) === source) return value;
  return json.rawJSON(source!);
}

/** Parses the shape, and checks that the frame has as many bytes. */
function parseShape(text: string, size: number): RawShape {
  let shape: RawShape;
  try {
    shape = parseRawShape(text);
  } catch (error) {
    throw new FramesError("unreadable", `its X-Raw is invalid: ${(error as Error).message}`);
  }
  checkRawSize(size, shape, text);
  return shape;
}

function invalidHeader(name: string, expected: string, found: string): FramesError {
  const what = JSON.stringify(found.slice(0, 60));
  return new FramesError(
    "unreadable",
    `its ${name} is invalid: expected ${expected}, found ${what}`,
  );
}

/**
 * Escapes percent signs, a first space, and characters that end lines or control a terminal, so that
 * the text fits into a header.
 */
function escapeText(text: string): string {
  return text.replace(/^ |[%\p{Cc}\u2028\u2029\u202a-\u202e\u2066-\u2069]/gu, (character) =>
    [...Buffer.from(character)].map((byte) => `%${byte.toString(16).padStart(2, "0")}`).join(""),
  );
}

/** Writes JSON in one line. Keeps all digits of its numbers, which parsing it would round. */
function escapeJson(json: string): string {
  // Line feeds stand between values only, and the other characters only in text.
  return json
    .replace(/[\t\r\n]/g, " ")
    .replace(/[\p{Cc}\u2028\u2029\u202a-\u202e\u2066-\u2069]/gu, (character) => {
      return `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
    });
}

/** Reverses `escapeText`. Leaves a percent sign that begins no escape as it is. */
function unescapeText(text: string): string {
  return text.replace(/(?:%[0-9a-f]{2})+/gi, (escapes) =>
    Buffer.from(escapes.replaceAll("%", ""), "hex").toString(),
  );
}
