/**
 * Finds the end of a portable anymap (PBM, PGM, PPM, PAM, PFM) by the number of samples in its
 * header.
 */
import { CommentFilter, isWhitespace, TextSampleCounter } from "./pnm-text.ts";
import {
  ImageError,
  type ImageParser,
  quoteBytes,
  ImageTooLargeError,
  UnknownImageError,
} from "./image-parser.ts";

/** Header fields and sample encoding of one magic number. */
interface PnmFormat {
  readonly label: string;
  readonly extension: string;
  /** Header fields in order; empty for PAM, which has lines with named fields. */
  readonly fields: readonly HeaderField[];
  /** Samples for each pixel. */
  readonly depth: number;
  /**
   * Encoding: `bits` packs eight samples into a byte, `digits` needs no separator between samples.
   */
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

/** Named fields of a PAM header. TUPLTYPE is also allowed, with any value. */
const pamFields = new Map<string, HeaderField>([
  ["WIDTH", "width"],
  ["HEIGHT", "height"],
  ["DEPTH", "depth"],
  ["MAXVAL", "maximum"],
]);

/** Largest value of each header field. */
const maxFieldValues: Record<HeaderField, number> = {
  width: 0x7fff_ffff,
  height: 0x7fff_ffff,
  depth: 0xffff,
  maximum: 0xffff,
  scale: Infinity,
};

/** Longest token in a header, and longest line in a PAM header, in characters. */
const maxTokenLength = 32;
const maxHeaderLineLength = 255;

const State = {
  start: 0,
  kind: 1,
  /** Whitespace or a comment must follow the magic number. */
  blank: 2,
  /** Header fields separated by whitespace. */
  tokens: 3,
  /** Lines of a PAM header. */
  lines: 4,
  /** Binary samples. */
  raster: 5,
  /** Samples in decimal. */
  text: 6,
} as const;
type State = (typeof State)[keyof typeof State];

/** Parses PBM, PGM, PPM, PAM and PFM. */
export class PnmParser implements ImageParser {
  readonly trustedBytes = 1;
  readonly embeddedBytes = 0;
  readonly #maxBytes: number;
  #state: State = State.start;
  #format: PnmFormat | undefined;
  readonly #commentFilter = new CommentFilter();
  /** Header fields parsed so far. */
  readonly #values = new Map<HeaderField, number>();
  /** Token or line of the header being parsed, and its offset in the image. */
  #token = "";
  #tokenStart = 0;
  /** Bytes of the image before the current piece. */
  #consumed = 0;
  /** Size of the whole image in bytes; unknown for text formats. */
  #size: number | undefined;
  /** Bytes of samples still to come. */
  #remaining = 0;
  #textSamples: TextSampleCounter | undefined;

  /** @param maxBytes largest allowed image, in bytes */
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

  /** Whether the samples are text. Blank lines may follow such an image. */
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
    // A single whitespace byte ends the header. The next byte may be a sample of the same value.
    if (this.#values.size === fields.length) this.#computeSize(at);
  }

  #parseLines(byte: number, at: number): void {
    // In a PAM header a comment occupies a whole line.
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

  /** Computes the size of the samples. The header ended with the byte at `at`. */
  #computeSize(at: number): void {
    const { samples, depth } = this.#format!;
    const width = this.#values.get("width")!;
    const height = this.#values.get("height")!;
    const count = width * height * (this.#values.get("depth") ?? depth);
    const headerBytes = this.#consumed + at + 1;
    if (samples === "digits" || samples === "numbers") {
      this.#state = State.text;
      this.#textSamples = new TextSampleCounter(count, samples === "digits");
      // Each number but the last is followed by whitespace.
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

  /** Creates an error for the token that ends at `at`. */
  #error(at: number, problem: string): ImageError {
    const where = this.#token === "" ? at : this.#tokenStart - this.#consumed;
    return new ImageError(where, `${this.label} ${problem}`);
  }
}

function quoteText(text: string): string {
  return quoteBytes(Buffer.from(text, "latin1"));
}
