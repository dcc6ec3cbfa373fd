/**
 * The dialect of the article that `frames` grew from (SPEC appendix A): bytes <-> steps. Its text has no
 * terminators. What can be told from the bytes alone ends there, however they were cut; for the rest the
 * client waits for an answer, so that a quiet moment ends it, which the caller tells.
 */
import { FramesError } from "../errors.ts";

/** What a decoder tells, in order. */
export interface ArticleHandler {
  /** The header came; its answer is due when this returns or later. */
  onHeader(kind: string, folder: string): void;
  /** A picture begins. */
  onPicture(size: number, name: string): void;
  /** Bytes of the picture, good until this returns. */
  onPayload(bytes: Uint8Array): void;
  /** The client waits for an answer to what came so far of the picture that was begun. */
  onAnswerDue(): void;
  /** All of the picture came; one answer is due, and only when the picture is safe. */
  onPictureComplete(): void;
  /** Nothing more will come. */
  onOver(): void;
}

/** What every step is answered with. */
export const articleAnswer = "ok";

/** Bytes of a header, or of what announces a picture. */
export const maxTextBytes = 1024;

/** Digits of a length: more are no picture's. */
const maxDigits = 15;

/**
 * The name of a picture as the published client needs it, whose `int(name[:-4])` must be a number, with an
 * ending that no longer one begins with: it is whole as soon as it is there. `.tif` may become `.tiff`.
 */
const completeTitle =
  /^\d{1,15}\|\d+\.(?:jpg|png|bmp|gif|pgm|ppm|pbm|pnm|raw|bin|npy|npz|dng|exr|hdr|tga|jxl|jp2|txt)$/i;

const bar = 0x7c;
const dot = 0x2e;

/** Where a decoder is. */
type State = "header" | "answering" | "title" | "payload" | "word" | "over";

/** Reads what a client sends. */
export class ArticleDecoder {
  readonly #handler: ArticleHandler;
  #state: State = "header";
  /** Text that is not whole yet. */
  readonly #text = new Uint8Array(maxTextBytes);
  #length = 0;
  /** Where its `|` is, if that came. */
  #bar: number | undefined;
  /** Bytes of the picture that are still to come, and until the next answer. */
  #remainingBytes = 0;
  #halfBytes = 0;
  #bytesUntilAnswer = 0;
  /** Whether no picture came yet. */
  #isFirst = true;

  constructor(handler: ArticleHandler) {
    this.#handler = handler;
  }

  /** Whether the client has said that nothing more will come. */
  get isOver(): boolean {
    return this.#state === "over";
  }

  /** Whether a quiet moment now would end what came: to be told by `quiet`. */
  get canEndOnQuiet(): boolean {
    if (this.#state === "header") return this.#length > 0;
    return this.#state === "title" && this.#bar !== undefined && this.#bar < this.#length - 1;
  }

  /** Whether some text has begun and is not whole. */
  get hasPartialText(): boolean {
    return this.#length > 0;
  }

  /** For people: what is to come. */
  get awaited(): string {
    if (this.#state === "header") return "header KIND|FOLDER";
    if (this.#state === "payload")
      return `${this.#remainingBytes} ${this.#remainingBytes === 1 ? "byte" : "bytes"} of a picture`;
    return this.#state === "word" ? "continue or over" : "LENGTH|NAME";
  }

  /**
   * Takes bytes.
   *
   * @throws {FramesError} `foreign` if the header is wrong, `protocol` if anything after it is
   */
  receive(chunk: Uint8Array): void {
    let at = 0;
    while (at < chunk.length) {
      if (this.#state === "over") return;
      at =
        this.#state === "payload" ? this.#readPayload(chunk, at) : this.#readText(chunk[at]!, at);
    }
  }

  /**
   * Nothing came for a while, so that the client must be waiting: what came is whole.
   *
   * @throws {FramesError} as `receive`
   */
  onQuiet(): void {
    if (!this.canEndOnQuiet) return;
    if (this.#state === "header") this.#endHeader();
    else this.#endTitle();
  }

  /** The header is answered: pictures can come. */
  onHeaderAnswered(): void {
    if (this.#state === "answering") this.#state = "title";
  }

  /** The text so far, a character for each byte. */
  #textAsLatin1(): string {
    return String.fromCharCode(...this.#text.subarray(0, this.#length));
  }

  /** The text as it was meant, which ends with this. */
  #endText(): string | undefined {
    const bytes = this.#text.subarray(0, this.#length);
    this.#clearText();
    try {
      return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    } catch {
      return undefined;
    }
  }

  #clearText(): void {
    this.#length = 0;
    this.#bar = undefined;
  }

  #readText(byte: number, at: number): number {
    if (this.#length === maxTextBytes) {
      const message = `Cannot read ${this.awaited}: it is longer than ${maxTextBytes} bytes`;
      throw this.#state === "header" ? foreignError(message) : new FramesError("protocol", message);
    }
    this.#text[this.#length++] = byte;
    if (this.#state === "header") this.#readHeaderByte(byte);
    else if (this.#state === "title") this.#readTitleByte(byte);
    else if (this.#state === "word") this.#readWord();
    else throw new FramesError("protocol", "The client sent more before its header was answered");
    return at + 1;
  }

  /** What can never become a header is none at once. */
  #readHeaderByte(byte: number): void {
    if (byte < 0x20 || byte === 0x7f || (byte === bar && this.#bar !== undefined)) {
      throw foreignError(`${headerExpected}, but ${excerpt(this.#textAsLatin1())}`);
    }
    if (byte === bar) this.#bar = this.#length - 1;
  }

  #endHeader(): void {
    const text = this.#endText();
    const [kind, folder] = text?.split("|") ?? [];
    if (!kind || !folder) throw foreignError(`${headerExpected}, but ${excerpt(text)}`);
    this.#state = "answering";
    this.#handler.onHeader(kind, folder);
  }

  /** What announces a picture. */
  #readTitleByte(byte: number): void {
    const isDigit = byte >= 0x30 && byte <= 0x39;
    if (this.#bar === undefined && !isDigit) {
      // A folder of no pictures.
      if (this.#isFirst && "over".startsWith(this.#textAsLatin1())) return this.#readWord();
      if (byte !== bar || this.#length === 1) throw this.#titleError();
      this.#bar = this.#length - 1;
    } else if (this.#bar === undefined) {
      if (this.#length > maxDigits) throw this.#titleError();
    } else if (byte === bar) throw this.#titleError();
    else if (this.#text[this.#length - 4] === dot && completeTitle.test(this.#textAsLatin1())) {
      this.#endTitle();
    }
  }

  #titleError(): FramesError {
    const message = `Not a picture's LENGTH|NAME, but ${excerpt(this.#textAsLatin1())}`;
    return new FramesError("protocol", message);
  }

  #endTitle(): void {
    const text = this.#endText();
    if (text === undefined) {
      throw new FramesError("protocol", "The name of a picture is not UTF-8");
    }
    const at = text.indexOf("|");
    const size = Number(text.slice(0, at));
    this.#isFirst = false;
    this.#remainingBytes = size;
    this.#halfBytes = Math.floor(size / 2);
    this.#bytesUntilAnswer = this.#halfBytes;
    this.#state = "payload";
    this.#handler.onPicture(size, text.slice(at + 1));
    // With nothing to come, the answer to the announcement is the last one.
    if (size === 0) this.#endPicture();
    else this.#handler.onAnswerDue();
  }

  #readPayload(chunk: Uint8Array, at: number): number {
    // One byte is less than two halves.
    const pieceBytes =
      this.#bytesUntilAnswer > 0
        ? Math.min(this.#remainingBytes, this.#bytesUntilAnswer)
        : this.#remainingBytes;
    const bytes = chunk.subarray(at, at + pieceBytes);
    this.#remainingBytes -= bytes.length;
    this.#bytesUntilAnswer -= bytes.length;
    this.#handler.onPayload(bytes);
    if (this.#remainingBytes === 0) this.#endPicture();
    else if (this.#bytesUntilAnswer === 0) {
      this.#bytesUntilAnswer = this.#halfBytes;
      this.#handler.onAnswerDue();
    }
    return at + bytes.length;
  }

  #endPicture(): void {
    this.#state = "word";
    this.#handler.onPictureComplete();
  }

  /** `continue` or `over`, as far as it came. */
  #readWord(): void {
    const text = this.#textAsLatin1();
    if (text === "over") {
      this.#clearText();
      this.#state = "over";
      this.#handler.onOver();
    } else if (text === "continue") {
      this.#clearText();
      this.#state = "title";
    } else if (!"continue".startsWith(text) && !"over".startsWith(text)) {
      const message = `Neither continue nor over after a picture, but ${excerpt(text)}`;
      throw new FramesError("protocol", message);
    }
  }
}

const headerExpected = "Not the article's header KIND|FOLDER";

function foreignError(message: string): FramesError {
  return new FramesError("foreign", message);
}

/** The beginning of what came, for people. */
function excerpt(text: string | undefined): string {
  if (text === undefined) return "bytes that are no text";
  return JSON.stringify(text.length > 40 ? `${text.slice(0, 40)}…` : text);
}

/** A step of a client, as bytes. */
export function encodeStep(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

/** What opens a conversation. */
export function encodeHeader(kind: string, folder: string): Uint8Array {
  return encodeStep(`${kind}|${folder}`);
}

/** What announces a picture. */
export function encodeTitle(size: number, name: string): Uint8Array {
  return encodeStep(`${size}|${name}`);
}

/** Counts the answers of a server, which run together and are cut as the network likes. */
export class AnswerCounter {
  #isHalf = false;

  /**
   * How many answers were completed by these bytes.
   *
   * @throws {FramesError} `foreign` if they are no answers
   */
  count(chunk: Uint8Array): number {
    let answers = 0;
    for (const byte of chunk) {
      if (byte !== articleAnswer.charCodeAt(this.#isHalf ? 1 : 0)) {
        const text = new TextDecoder("latin1").decode(chunk.subarray(0, 40));
        throw foreignError(`it answered ${JSON.stringify(text)} and not ${articleAnswer}`);
      }
      if (this.#isHalf) answers++;
      this.#isHalf = !this.#isHalf;
    }
    return answers;
  }
}
