/** The end of a portable anymap (PBM, PGM, PPM, PAM, PFM): its header says how many samples there are. */
import { Comments, isBlank, TextSamples } from "./pnm-text.ts";
import { Flaw, type ImageReader, quoted, TooLarge, UnknownStart } from "./reader.ts";

/** What follows the magic number, and what the samples are. */
interface Format {
  readonly kind: string;
  readonly ending: string;
  /** What the header has; PAM has lines with names instead. */
  readonly fields: readonly Field[];
  /** Samples of a pixel. */
  readonly depth: number;
  /** `bits` are eight samples to a byte, `digits` need nothing between them. */
  readonly samples: "bits" | "binary" | "float" | "digits" | "numbers";
}

type Field = "width" | "height" | "maximum" | "scale" | "depth";

const plain: readonly Field[] = ["width", "height"];
const graded: readonly Field[] = ["width", "height", "maximum"];
const scaled: readonly Field[] = ["width", "height", "scale"];

const formats = new Map<string, Format>([
  ["1", { kind: "a PBM", ending: "pbm", fields: plain, depth: 1, samples: "digits" }],
  ["2", { kind: "a PGM", ending: "pgm", fields: graded, depth: 1, samples: "numbers" }],
  ["3", { kind: "a PPM", ending: "ppm", fields: graded, depth: 3, samples: "numbers" }],
  ["4", { kind: "a PBM", ending: "pbm", fields: plain, depth: 1, samples: "bits" }],
  ["5", { kind: "a PGM", ending: "pgm", fields: graded, depth: 1, samples: "binary" }],
  ["6", { kind: "a PPM", ending: "ppm", fields: graded, depth: 3, samples: "binary" }],
  ["7", { kind: "a PAM", ending: "pam", fields: [], depth: 1, samples: "binary" }],
  ["f", { kind: "a PFM", ending: "pfm", fields: scaled, depth: 1, samples: "float" }],
  ["F", { kind: "a PFM", ending: "pfm", fields: scaled, depth: 3, samples: "float" }],
]);

/** The lines of a PAM's header, but for TUPLTYPE, which is free. */
const pamFields = new Map<string, Field>([
  ["WIDTH", "width"],
  ["HEIGHT", "height"],
  ["DEPTH", "depth"],
  ["MAXVAL", "maximum"],
]);

/** The most that each field may say. */
const most: Record<Field, number> = {
  width: 0x7fff_ffff,
  height: 0x7fff_ffff,
  depth: 0xffff,
  maximum: 0xffff,
  scale: Infinity,
};

/** Characters of a word in a header; of a line in PAM's. */
const longestWord = 32;
const longestLine = 255;

const State = {
  start: 0,
  kind: 1,
  /** A blank or a comment must follow the magic number. */
  blank: 2,
  /** Words of the header. */
  words: 3,
  /** Lines of PAM's header. */
  lines: 4,
  /** Samples as bytes. */
  raster: 5,
  /** Samples as text. */
  text: 6,
} as const;
type State = (typeof State)[keyof typeof State];

/** Reads PBM, PGM, PPM, PAM and PFM. */
export class PnmReader implements ImageReader {
  readonly #largest: number;
  #state: State = State.start;
  #format: Format | undefined;
  readonly #comments = new Comments();
  /** What the header said so far. */
  readonly #said = new Map<Field, number>();
  /** The word or line of the header that is being read, and where in the image it began. */
  #word = "";
  #wordAt = 0;
  /** Bytes of the image before the piece being read. */
  #before = 0;
  /** Bytes of the whole image, unless it is text. */
  #size: number | undefined;
  /** Bytes of the raster to come. */
  #left = 0;
  #text: TextSamples | undefined;

  /** @param largest bytes that an image may have */
  constructor(largest: number) {
    this.#largest = largest;
  }

  get kind(): string {
    return this.#format?.kind ?? "a PNM";
  }

  get ending(): string {
    return this.#format?.ending ?? "pnm";
  }

  get size(): number | undefined {
    return this.#size;
  }

  get isWhole(): boolean {
    return this.#text?.isWhole ?? false;
  }

  /** Whether it is text, which ends with a line: more blanks may follow. */
  get isText(): boolean {
    return this.#text !== undefined;
  }

  read(bytes: Uint8Array): number {
    let at = 0;
    while (this.#state < State.raster) {
      if (at === bytes.length) {
        this.#before += at;
        return -1;
      }
      this.#header(bytes[at]!, at);
      at++;
    }
    if (this.#text !== undefined) return this.#text.read(bytes, at);
    const came = bytes.length - at;
    if (came >= this.#left) return at + this.#left;
    this.#left -= came;
    return -1;
  }

  #header(byte: number, at: number): void {
    switch (this.#state) {
      case State.start:
        if (byte !== 0x50) throw new UnknownStart(at);
        this.#state = State.kind;
        return;
      case State.kind:
        this.#format = formats.get(String.fromCharCode(byte));
        if (this.#format === undefined) throw new UnknownStart(at);
        this.#state = State.blank;
        return;
      case State.blank:
        if (!isBlank(byte) && byte !== 0x23) throw new UnknownStart(at);
        this.#state = this.#format!.fields.length > 0 ? State.words : State.lines;
        return this.#header(byte, at);
      case State.words:
        return this.#words(byte, at);
      case State.lines:
        return this.#lines(byte, at);
    }
  }

  #words(byte: number, at: number): void {
    const seen = this.#comments.pass(byte);
    if (seen === undefined) return;
    if (!isBlank(seen)) return this.#add(seen, at, longestWord);
    if (this.#word === "") return;
    const { fields } = this.#format!;
    const field = fields[this.#said.size]!;
    this.#set(field, this.#word, at);
    this.#word = "";
    // One blank ends the header: the next byte may be a sample that looks like another.
    if (this.#said.size === fields.length) this.#measure(at);
  }

  #lines(byte: number, at: number): void {
    // A comment takes a whole line here.
    const seen = this.#word === "" ? this.#comments.pass(byte) : byte;
    if (seen === undefined) return;
    if (seen !== 0x0a) return this.#add(seen, at, longestLine);
    const [name = "", value = ""] = this.#word.trim().split(/\s+/);
    const field = pamFields.get(name);
    if (field !== undefined) this.#set(field, value, at);
    else if (name === "ENDHDR") this.#endLines(at);
    else if (name !== "" && name !== "TUPLTYPE") {
      throw this.#flaw(at, `has the line ${quotedText(this.#word)} in its header`);
    }
    this.#word = "";
  }

  #add(byte: number, at: number, longest: number): void {
    if (this.#word === "") this.#wordAt = this.#before + at;
    this.#word += String.fromCharCode(byte);
    if (this.#word.length > longest) {
      throw this.#flaw(at, `has ${quotedText(this.#word)} and more in its header`);
    }
  }

  #set(field: Field, text: string, at: number): void {
    const pattern = field === "scale" ? /^[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?$/i : /^\d+$/;
    const value = pattern.test(text) ? Number(text) : NaN;
    const isRight = field === "scale" ? Number.isFinite(value) : value >= 1 && value <= most[field];
    if (!isRight) throw this.#flaw(at, `has ${quotedText(text)} for its ${field}`);
    this.#said.set(field, value);
  }

  #endLines(at: number): void {
    const missing = [...pamFields].find(([, field]) => !this.#said.has(field));
    if (missing !== undefined) throw this.#flaw(at, `has no ${missing[0]} in its header`);
    this.#measure(at);
  }

  /** The header has ended with the byte at `at`: how much follows? */
  #measure(at: number): void {
    const { samples, depth } = this.#format!;
    const width = this.#said.get("width")!;
    const height = this.#said.get("height")!;
    const count = width * height * (this.#said.get("depth") ?? depth);
    const header = this.#before + at + 1;
    if (samples === "digits" || samples === "numbers") {
      this.#state = State.text;
      this.#text = new TextSamples(count, samples === "digits");
      // Of numbers, all but the last have a blank after them.
      const least = header + (samples === "digits" ? count : 2 * count - 1);
      if (least > this.#largest) throw new TooLarge();
      return;
    }
    const isWide = (this.#said.get("maximum") ?? 0) > 255;
    if (samples === "bits") this.#left = Math.ceil(width / 8) * height;
    else this.#left = count * (samples === "float" ? 4 : isWide ? 2 : 1);
    this.#state = State.raster;
    this.#size = header + this.#left;
    if (this.#size > this.#largest) throw new TooLarge();
  }

  /** What is wrong with the word that ends at `at`. */
  #flaw(at: number, what: string): Flaw {
    const where = this.#word === "" ? at : this.#wordAt - this.#before;
    return new Flaw(where, `${this.kind} ${what}`);
  }
}

function quotedText(text: string): string {
  return quoted(Buffer.from(text, "latin1"));
}
