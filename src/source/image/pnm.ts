/** The end of a portable anymap (PBM, PGM, PPM, PAM, PFM): its header says how many samples there are. */
import { CommentFilter, isWhitespace, TextSampleCounter } from "./pnm-text.ts";
import {
  ImageError,
  type ImageParser,
  quoteBytes,
  ImageTooLargeError,
  UnknownImageError,
} from "./image-parser.ts";

/** What follows the magic number, and what the samples are. */
interface PnmFormat {
  readonly label: string;
  readonly extension: string;
  /** What the header has; PAM has lines with names instead. */
  readonly fields: readonly HeaderField[];
  /** Samples of a pixel. */
  readonly depth: number;
  /** `bits` are eight samples to a byte, `digits` need nothing between them. */
  readonly samples: "bits" | "binary" | "float" | "digits" | "numbers";
}

type HeaderField = "width" | "height" | "maximum" | "scale" | "depth";

const sizeFields: readonly HeaderField[] = ["width", "height"];
const maximumFields: readonly HeaderField[] = ["width", "height", "maximum"];
const scaleFields: readonly HeaderField[] = ["width", "height", "scale"];

const formats = new Map<string, PnmFormat>([
  ["1", { label: "a PBM", extension: "pbm", fields: sizeFields, depth: 1, samples: "digits" }],
  ["2", { label: "a PGM", extension: "pgm", fields: maximumFields, depth: 1, samples: "numbers" }],
  ["3", { label: "a PPM", extension: "ppm", fields: maximumFields, depth: 3, samples: "numbers" }],
  ["4", { label: "a PBM", extension: "pbm", fields: sizeFields, depth: 1, samples: "bits" }],
  ["5", { label: "a PGM", extension: "pgm", fields: maximumFields, depth: 1, samples: "binary" }],
  ["6", { label: "a PPM", extension: "ppm", fields: maximumFields, depth: 3, samples: "binary" }],
  ["7", { label: "a PAM", extension: "pam", fields: [], depth: 1, samples: "binary" }],
  ["f", { label: "a PFM", extension: "pfm", fields: scaleFields, depth: 1, samples: "float" }],
  ["F", { label: "a PFM", extension: "pfm", fields: scaleFields, depth: 3, samples: "float" }],
]);

/** The lines of a PAM's header, but for TUPLTYPE, which is free. */
const pamFields = new Map<string, HeaderField>([
  ["WIDTH", "width"],
  ["HEIGHT", "height"],
  ["DEPTH", "depth"],
  ["MAXVAL", "maximum"],
]);

/** The most that each field may say. */
const maxFieldValues: Record<HeaderField, number> = {
  width: 0x7fff_ffff,
  height: 0x7fff_ffff,
  depth: 0xffff,
  maximum: 0xffff,
  scale: Infinity,
};

/** Characters of a word in a header; of a line in PAM's. */
const maxTokenLength = 32;
const maxHeaderLineLength = 255;

const State = {
  start: 0,
  kind: 1,
  /** A blank or a comment must follow the magic number. */
  blank: 2,
  /** Words of the header. */
  tokens: 3,
  /** Lines of PAM's header. */
  lines: 4,
  /** Samples as bytes. */
  raster: 5,
  /** Samples as text. */
  text: 6,
} as const;
type State = (typeof State)[keyof typeof State];

/** Reads PBM, PGM, PPM, PAM and PFM. */
export class PnmParser implements ImageParser {
  readonly #maxBytes: number;
  #state: State = State.start;
  #format: PnmFormat | undefined;
  readonly #commentFilter = new CommentFilter();
  /** What the header said so far. */
  readonly #values = new Map<HeaderField, number>();
  /** The word or line of the header that is being read, and where in the image it began. */
  #token = "";
  #tokenStart = 0;
  /** Bytes of the image before the piece being read. */
  #consumed = 0;
  /** Bytes of the whole image, unless it is text. */
  #size: number | undefined;
  /** Bytes of the raster to come. */
  #remaining = 0;
  #textSamples: TextSampleCounter | undefined;

  /** @param maxBytes bytes that an image may have */
  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  get label(): string {
    return this.#format?.label ?? "a PNM";
  }

  get extension(): string {
    return this.#format?.extension ?? "pnm";
  }

  get size(): number | undefined {
    return this.#size;
  }

  get isComplete(): boolean {
    return this.#textSamples?.isComplete ?? false;
  }

  /** Whether it is text, which ends with a line: more blanks may follow. */
  get isText(): boolean {
    return this.#textSamples !== undefined;
  }

  parse(bytes: Uint8Array): number {
    let at = 0;
    while (this.#state < State.raster) {
      if (at === bytes.length) {
        this.#consumed += at;
        return -1;
      }
      this.#parseHeader(bytes[at]!, at);
      at++;
    }
    if (this.#textSamples !== undefined) return this.#textSamples.parse(bytes, at);
    const available = bytes.length - at;
    if (available >= this.#remaining) return at + this.#remaining;
    this.#remaining -= available;
    return -1;
  }

  #parseHeader(byte: number, at: number): void {
    switch (this.#state) {
      case State.start:
        if (byte !== 0x50) throw new UnknownImageError(at);
        this.#state = State.kind;
        return;
      case State.kind:
        this.#format = formats.get(String.fromCharCode(byte));
        if (this.#format === undefined) throw new UnknownImageError(at);
        this.#state = State.blank;
        return;
      case State.blank:
        if (!isWhitespace(byte) && byte !== 0x23) throw new UnknownImageError(at);
        this.#state = this.#format!.fields.length > 0 ? State.tokens : State.lines;
        return this.#parseHeader(byte, at);
      case State.tokens:
        return this.#parseTokens(byte, at);
      case State.lines:
        return this.#parseLines(byte, at);
    }
  }

  #parseTokens(byte: number, at: number): void {
    const seen = this.#commentFilter.filter(byte);
    if (seen === undefined) return;
    if (!isWhitespace(seen)) return this.#append(seen, at, maxTokenLength);
    if (this.#token === "") return;
    const { fields } = this.#format!;
    const field = fields[this.#values.size]!;
    this.#setField(field, this.#token, at);
    this.#token = "";
    // One blank ends the header: the next byte may be a sample that looks like another.
    if (this.#values.size === fields.length) this.#computeSize(at);
  }

  #parseLines(byte: number, at: number): void {
    // A comment takes a whole line here.
    const seen = this.#token === "" ? this.#commentFilter.filter(byte) : byte;
    if (seen === undefined) return;
    if (seen !== 0x0a) return this.#append(seen, at, maxHeaderLineLength);
    const [name = "", value = ""] = this.#token.trim().split(/\s+/);
    const field = pamFields.get(name);
    if (field !== undefined) this.#setField(field, value, at);
    else if (name === "ENDHDR") this.#endHeader(at);
    else if (name !== "" && name !== "TUPLTYPE") {
      throw this.#error(at, `has the line ${quoteText(this.#token)} in its header`);
    }
    this.#token = "";
  }

  #append(byte: number, at: number, maxLength: number): void {
    if (this.#token === "") this.#tokenStart = this.#consumed + at;
    this.#token += String.fromCharCode(byte);
    if (this.#token.length > maxLength) {
      throw this.#error(at, `has ${quoteText(this.#token)} and more in its header`);
    }
  }

  #setField(field: HeaderField, text: string, at: number): void {
    const pattern = field === "scale" ? /^[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?$/i : /^\d+$/;
    const value = pattern.test(text) ? Number(text) : NaN;
    const isValid =
      field === "scale" ? Number.isFinite(value) : value >= 1 && value <= maxFieldValues[field];
    if (!isValid) throw this.#error(at, `has ${quoteText(text)} for its ${field}`);
    this.#values.set(field, value);
  }

  #endHeader(at: number): void {
    const missing = [...pamFields].find(([, field]) => !this.#values.has(field));
    if (missing !== undefined) throw this.#error(at, `has no ${missing[0]} in its header`);
    this.#computeSize(at);
  }

  /** The header has ended with the byte at `at`: how much follows? */
  #computeSize(at: number): void {
    const { samples, depth } = this.#format!;
    const width = this.#values.get("width")!;
    const height = this.#values.get("height")!;
    const count = width * height * (this.#values.get("depth") ?? depth);
    const headerBytes = this.#consumed + at + 1;
    if (samples === "digits" || samples === "numbers") {
      this.#state = State.text;
      this.#textSamples = new TextSampleCounter(count, samples === "digits");
      // Of numbers, all but the last have a blank after them.
      const minBytes = headerBytes + (samples === "digits" ? count : 2 * count - 1);
      if (minBytes > this.#maxBytes) throw new ImageTooLargeError();
      return;
    }
    const isTwoBytes = (this.#values.get("maximum") ?? 0) > 255;
    if (samples === "bits") this.#remaining = Math.ceil(width / 8) * height;
    else this.#remaining = count * (samples === "float" ? 4 : isTwoBytes ? 2 : 1);
    this.#state = State.raster;
    this.#size = headerBytes + this.#remaining;
    if (this.#size > this.#maxBytes) throw new ImageTooLargeError();
  }

  /** What is wrong with the word that ends at `at`. */
  #error(at: number, problem: string): ImageError {
    const where = this.#token === "" ? at : this.#tokenStart - this.#consumed;
    return new ImageError(where, `${this.label} ${problem}`);
  }
}

function quoteText(text: string): string {
  return quoteBytes(Buffer.from(text, "latin1"));
}
