/**
 * Codec of the article's dialect (SPEC appendix A). Its texts have no terminators. A text ends as
 * soon as its bytes are unambiguous, however the network split them. Otherwise it ends when the
 * client falls silent to wait for an answer; the caller then calls `onQuiet`.
 */
import { FramesError } from "../errors.ts";

/** Callbacks of the decoder, in the order of the bytes. */
export interface ArticleHandler {
  /** Called for the header. Its answer may be sent from within this call or later. */
  onHeader(kind: string, folder: string): void;
  /** Called when a picture begins. */
  onPicture(size: number, name: string): void;
  /** Called with payload of the picture; a view that is valid until the call returns. */
  onPayload(bytes: Uint8Array): void;
  /** Called when the client waits for an answer within a picture. */
  onAnswerDue(): void;
  /** Called when the picture is complete. One answer is due once the picture is stored. */
  onPictureComplete(): void;
  /** Called for `over`. */
  onOver(): void;
}

/** The server's answer to every step. */
export const articleAnswer = "ok";

/** Limit of a header or an announcement `LENGTH|NAME`, in bytes. */
export const maxTextBytes = 1024;

/** Limit of the digits of LENGTH. */
const maxDigits = 15;

/**
 * An announcement that is complete without waiting for silence. The published client's names are a
 * number and four more characters (`int(name[:-4])`). None of these endings begins a longer one;
 * `.tif` is missing because of `.tiff`.
 */
const completeTitle =
  /^\d{1,15}\|\d+\.(?:jpg|png|bmp|gif|pgm|ppm|pbm|pnm|raw|bin|npy|npz|dng|exr|hdr|tga|jxl|jp2|txt)$/i;

const bar = 0x7c;
const dot = 0x2e;

/** State of the decoder. */
type State = "header" | "answering" | "title" | "payload" | "word" | "over";

/** Decodes what a client sends. */
export class ArticleDecoder {
  readonly #handler: ArticleHandler;
  #state: State = "header";
  /** The incomplete text. */
  readonly #text = new Uint8Array(maxTextBytes);
  #length = 0;
  /** Offset of `|` in the text; `undefined` until it arrives. */
  #bar: number | undefined;
  /**
   * Payload bytes left in the picture, half of its size, and payload bytes until the next answer.
   */
  #remainingBytes = 0;
  #halfBytes = 0;
  #bytesUntilAnswer = 0;
  /** Whether no picture has been announced yet. */
  #isFirst = true;

  constructor(handler: ArticleHandler) {
    this.#handler = handler;
  }

  /** Whether the client has sent `over`. */
  get isOver(): boolean {
    return this.#state === "over";
  }

  /** Whether silence would complete the current text; call `onQuiet` then. */
  get canEndOnQuiet(): boolean {
    if (this.#state === "header") return this.#length > 0;
    return this.#state === "title" && this.#bar !== undefined && this.#bar < this.#length - 1;
  }

  /** Whether a text has begun and is not complete. */
  get hasPartialText(): boolean {
    return this.#length > 0;
  }

  /** What the client must send next, as worded in errors. */
  get awaited(): string {
    if (this.#state === "header") return "header KIND|FOLDER";
    if (this.#state === "payload")
      return `${this.#remainingBytes} ${this.#remainingBytes === 1 ? "byte" : "bytes"} of a frame`;
    return this.#state === "word" ? "continue or over" : "LENGTH|NAME";
  }

  /**
   * Decodes bytes, until a picture has ended and `isTurnOver` returns true.
   *
   * @returns the number of bytes decoded
   * @throws {FramesError} `foreign` if the header is wrong, `protocol` for any error after it
   */
  receive(chunk: Uint8Array, isTurnOver: () => boolean = () => false): number {
    let at = 0;
    while (at < chunk.length) {
      if (this.#state === "over") return chunk.length;
      const wasPayload = this.#state === "payload";
      at = wasPayload ? this.#readPayload(chunk, at) : this.#readText(chunk[at]!, at);
      if (wasPayload && this.#state === "word" && isTurnOver()) break;
    }
    return at;
  }

  /**
   * Completes the current text after the client has been silent.
   *
   * @throws {FramesError} as `receive`
   */
  onQuiet(): void {
    if (!this.canEndOnQuiet) return;
    if (this.#state === "header") this.#endHeader();
    else this.#endTitle();
  }

  /** Allows pictures, once the answer to the header is sent. */
  onHeaderAnswered(): void {
    if (this.#state === "answering") this.#state = "title";
  }

  /** Returns the text so far, one character for each byte. */
  #textAsLatin1(): string {
    return String.fromCharCode(...this.#text.subarray(0, this.#length));
  }

  /** Returns the completed text and clears it; `undefined` if it is not UTF-8. */
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

  /**
   * Checks each byte of the header at once, so that a wrong protocol is rejected without waiting.
   */
  #readHeaderByte(byte: number): void {
    if (byte < 0x20 || byte === 0x7f || (byte === bar && this.#bar !== undefined)) {
      throw foreignError(`${headerExpected}, received ${excerpt(this.#textAsLatin1())}`);
    }
    if (byte === bar) this.#bar = this.#length - 1;
  }

  #endHeader(): void {
    const text = this.#endText();
    const [kind, folder] = text?.split("|") ?? [];
    if (!kind || !folder) throw foreignError(`${headerExpected}, received ${excerpt(text)}`);
    this.#state = "answering";
    this.#handler.onHeader(kind, folder);
  }

  /** Reads a byte of `LENGTH|NAME`. */
  #readTitleByte(byte: number): void {
    const isDigit = byte >= 0x30 && byte <= 0x39;
    if (this.#bar === undefined && !isDigit) {
      // A folder without pictures sends `over` at once.
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
    const message = `Expected LENGTH|NAME of a frame, received ${excerpt(this.#textAsLatin1())}`;
    return new FramesError("protocol", message);
  }

  #endTitle(): void {
    const text = this.#endText();
    if (text === undefined) {
      throw new FramesError("protocol", "The name of a frame is not UTF-8");
    }
    const at = text.indexOf("|");
    const size = Number(text.slice(0, at));
    this.#isFirst = false;
    this.#remainingBytes = size;
    this.#halfBytes = Math.floor(size / 2);
    this.#bytesUntilAnswer = this.#halfBytes;
    this.#state = "payload";
    this.#handler.onPicture(size, text.slice(at + 1));
    // For an empty picture, the answer to its announcement is the last answer.
    if (size === 0) this.#endPicture();
    else this.#handler.onAnswerDue();
  }

  #readPayload(chunk: Uint8Array, at: number): number {
    // A picture of one byte has no halves, so no answer is due within it.
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

  /** Checks `continue` or `over` as far as it has arrived. */
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
      const message = `Expected continue or over after a frame, received ${excerpt(text)}`;
      throw new FramesError("protocol", message);
    }
  }
}

const headerExpected = "Expected the article's header KIND|FOLDER";

function foreignError(message: string): FramesError {
  return new FramesError("foreign", message);
}

/** Returns the start of a text, quoted for error messages. */
function excerpt(text: string | undefined): string {
  if (text === undefined) return "bytes that are not text";
  return JSON.stringify(text.length > 40 ? `${text.slice(0, 40)}…` : text);
}

/** Returns a text of the dialect as bytes. */
export function encodeStep(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

/** Returns the header, which opens the connection. */
export function encodeHeader(kind: string, folder: string): Uint8Array {
  return encodeStep(`${kind}|${folder}`);
}

/** Returns the announcement of a picture. */
export function encodeTitle(size: number, name: string): Uint8Array {
  return encodeStep(`${size}|${name}`);
}

/** Counts the answers of a server. Answers may arrive joined or split. */
export class AnswerCounter {
  #isHalf = false;

  /**
   * Returns how many answers these bytes complete.
   *
   * @throws {FramesError} `foreign` if they are not answers
   */
  count(chunk: Uint8Array): number {
    let answers = 0;
    for (const byte of chunk) {
      if (byte !== articleAnswer.charCodeAt(this.#isHalf ? 1 : 0)) {
        const text = new TextDecoder("latin1").decode(chunk.subarray(0, 40));
        throw foreignError(`it answered ${JSON.stringify(text)} instead of ${articleAnswer}`);
      }
      if (this.#isHalf) answers++;
      this.#isHalf = !this.#isHalf;
    }
    return answers;
  }
}
