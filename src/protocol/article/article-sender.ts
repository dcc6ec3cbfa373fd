/**
 * The sending end of the article's dialect (SPEC appendix A), as a machine without I/O. The server answers
 * each time it has read something, up to half of a picture, and must have read all of one step before it
 * sees the next: so no piece follows another before an answer, and no step a picture before the answers
 * have ceased.
 */
import { FramesError } from "../../errors.ts";
import { AnswerCounter, encodeHeader, encodeStep, encodeTitle } from "../../wire/article.ts";

/** What is to be done now. */
export type ArticleStep =
  | { readonly action: "send"; readonly bytes: Uint8Array; readonly what: string }
  /** An answer is waited for, until this time at most, if there is one. */
  | { readonly action: "wait"; readonly until: number }
  /** What was sent is there: `begin` another picture, or `finish`. */
  | { readonly action: "next" }
  /** More bytes of the picture: `give` them. */
  | { readonly action: "give" }
  /** The server answers without end to a picture of one byte, and takes nothing more. */
  | { readonly action: "stuck" }
  | { readonly action: "done" };

/**
 * Bytes of a piece: as many as go in one packet everywhere, so that the server reads them at once. A path
 * that keeps larger pieces whole is sent larger ones.
 */
const minPieceBytes = 1200;
const maxPieceBytes = 32 << 10;

/** Pieces of a picture that were all read at once say that larger ones may be. */
const minPiecesToGrow = 4;

/**
 * Milliseconds without an answer after which a picture has been read, and between `continue` and what follows,
 * which the server must read apart. Nothing tells whether it has. The article's own client is held up there
 * for 40 ms: by its system, until the server's has confirmed `continue`. So much, and hardly more, is taken
 * where that one works: with pictures of no more than these bytes, on a path that keeps pieces whole.
 */
const shortPauses = { settleMs: 4, gapMs: 36, totalMs: 41, maxExtraMs: 0 } as const;
const longPauses = { settleMs: 15, gapMs: 50, totalMs: 65, maxExtraMs: Infinity } as const;
const largePictureBytes = 200_000;

/** Pieces that were answered once each before a path is believed to keep them whole. */
const minTrustedPieces = 20;

/** Bytes that a server puts away in a millisecond. */
const storedBytesPerMs = 100_000;

/**
 * Milliseconds after which a server would have answered again that answers without end. Its system holds
 * back a second answer until ours has confirmed the first, which takes it 40 ms.
 */
const probeMs = 200;

/** No such pause is longer. */
const maxPauseMs = 2000;

type Phase =
  | "opening"
  | "awaiting-welcome"
  | "idle"
  | "apart"
  | "awaiting-title"
  | "probing"
  | "sending"
  | "awaiting-piece"
  | "settling"
  | "stuck"
  | "closing"
  | "done";

export class ArticleSender {
  readonly #header: { readonly kind: string; readonly folder: string };
  readonly #timeoutMs: number;
  readonly #answers = new AnswerCounter();
  #phase: Phase = "opening";
  /** The picture under way: its name, its bytes in all, and those not sent. */
  #name = "";
  #size = 0;
  #remainingBytes = 0;
  #payload = new Uint8Array(0);
  #pieceSize = minPieceBytes;
  /** Pieces that were answered once each, so far; below nothing for ever if one was not. */
  #wholePieces = 0;
  /** Pieces of the picture that were sent, and answers that came to them. */
  #pieces = 0;
  #pieceAnswers = 0;
  /** When something was last sent, and when an answer last came. */
  #sentAt = 0;
  #answeredAt = 0;
  /** The longest and the shortest that answers took of late: what they differ by may happen again. */
  #slowestMs = 0;
  #fastestMs = Infinity;
  /** Since when `continue` is sent. */
  #continuedAt = 0;
  /** When the picture was announced, and what the one before took and was. */
  #announcedAt = 0;
  #lastDurationMs = 0;
  #lastSize = 0;
  #isFirst = true;

  constructor(kind: string, folder: string, timeoutMs: number) {
    this.#header = { kind, folder };
    this.#timeoutMs = timeoutMs;
  }

  /** Whether the server took the header. */
  get isAccepted(): boolean {
    return this.#phase !== "opening" && this.#phase !== "awaiting-welcome";
  }

  /** Bytes of the picture under way that were sent. */
  get sent(): number {
    return this.#size - this.#remainingBytes;
  }

  /** A picture follows; all times are milliseconds of one steady clock. */
  begin(size: number, name: string): void {
    this.#name = name;
    this.#size = this.#remainingBytes = size;
    this.#payload = new Uint8Array(0);
    this.#pieces = this.#pieceAnswers = 0;
    this.#phase = "apart";
  }

  /** The next bytes of the picture, which stay as they are until it is settled. */
  pushPayload(bytes: Uint8Array<ArrayBuffer>): void {
    this.#payload = bytes;
  }

  /** No picture follows. */
  finish(): void {
    this.#phase = "closing";
  }

  /** What is to be done at this time; asked again when it was done, and when anything came. */
  step(now: number): ArticleStep {
    switch (this.#phase) {
      case "opening": {
        const { kind, folder } = this.#header;
        this.#phase = "awaiting-welcome";
        return this.#send(encodeHeader(kind, folder), `${kind}|${folder}`, now);
      }
      case "idle":
        return { action: "next" };
      case "apart":
        return this.#announce(now);
      case "probing": {
        const until = this.#answeredAt + probeMs;
        if (now < until) return { action: "wait", until };
        this.#phase = "sending";
        return this.step(now);
      }
      case "sending":
        return this.#sendPiece(now);
      case "settling":
        if (now < this.#quietAt) return { action: "wait", until: this.#quietAt };
        this.#finishPicture();
        return { action: "next" };
      case "closing":
        this.#phase = "done";
        return this.#send(encodeStep("over"), "over", now);
      case "stuck":
      case "done":
        return { action: this.#phase };
      case "awaiting-welcome":
      case "awaiting-title":
      case "awaiting-piece":
        // Whether it comes too late is for `tick` to say.
        return { action: "wait", until: Infinity };
    }
  }

  #send(bytes: Uint8Array, what: string, now: number): ArticleStep {
    this.#sentAt = now;
    return { action: "send", bytes, what };
  }

  /** `continue`, which needs a moment of its own, and what announces the picture. */
  #announce(now: number): ArticleStep {
    if (!this.#isFirst && this.#continuedAt === 0) {
      this.#continuedAt = now;
      return this.#send(encodeStep("continue"), "continue", now);
    }
    const { gapMs, totalMs, maxExtraMs } = this.#pauses(this.#lastSize);
    const busyMs = this.#jitterMs + this.#lastDurationMs / 2 + this.#lastSize / storedBytesPerMs;
    const pauseMs = Math.max(gapMs, totalMs - (this.#continuedAt - this.#answeredAt));
    const until = this.#continuedAt + Math.min(pauseMs + Math.min(maxExtraMs, busyMs), maxPauseMs);
    if (!this.#isFirst && now < until) return { action: "wait", until };
    this.#isFirst = false;
    this.#continuedAt = 0;
    this.#announcedAt = now;
    this.#phase = "awaiting-title";
    return this.#send(encodeTitle(this.#size, this.#name), `${this.#size}|${this.#name}`, now);
  }

  #sendPiece(now: number): ArticleStep {
    if (this.#payload.length === 0) return { action: "give" };
    const pieceBytes = Math.min(
      this.#pieceSize,
      Math.max(1, Math.floor(this.#size / 2)),
      this.#remainingBytes,
    );
    const piece = this.#payload.subarray(0, pieceBytes);
    this.#payload = this.#payload.subarray(piece.length);
    this.#remainingBytes -= piece.length;
    this.#pieces++;
    this.#phase = "awaiting-piece";
    return this.#send(piece, `${piece.length} bytes`, now);
  }

  /** Milliseconds that something may come late. */
  get #jitterMs(): number {
    return Math.max(0, this.#slowestMs - this.#fastestMs);
  }

  #recordDelay(delayMs: number): void {
    this.#slowestMs = Math.max(this.#slowestMs, delayMs);
    this.#fastestMs = Math.min(this.#fastestMs, delayMs);
  }

  /** How long the pauses after a picture are. */
  #pauses(size: number): typeof shortPauses | typeof longPauses {
    return this.#wholePieces >= minTrustedPieces && size <= largePictureBytes
      ? shortPauses
      : longPauses;
  }

  /** When answers will have ceased, if none comes any more. */
  get #quietAt(): number {
    const { settleMs: settle, maxExtraMs } = this.#pauses(this.#size);
    return (
      this.#answeredAt + Math.min(settle + Math.min(maxExtraMs, 2 * this.#jitterMs), maxPauseMs)
    );
  }

  /** The server has read the picture. More answers than pieces say that these did not arrive whole. */
  #finishPicture(): void {
    if (this.#pieceAnswers > this.#pieces) this.#onSplitPieces();
    else if (this.#pieces >= minPiecesToGrow) {
      this.#pieceSize = Math.min(maxPieceBytes, this.#pieceSize << 1);
    }
    this.#wholePieces += this.#pieces;
    this.#slowestMs = this.#fastestMs + 0.9 * this.#jitterMs;
    this.#lastDurationMs = this.#answeredAt - this.#announcedAt;
    this.#lastSize = this.#size;
    this.#phase = "idle";
  }

  /** There were more answers than pieces. From now on there is no hurry: the article's client would be lost. */
  #onSplitPieces(): void {
    this.#pieceSize = Math.max(minPieceBytes, this.#pieceSize >> 1);
    this.#wholePieces = -Infinity;
  }

  /**
   * Takes what the server sent.
   *
   * @throws {FramesError} `foreign` if it is no answer
   */
  receive(chunk: Uint8Array, now: number): void {
    const answers = this.#answers.count(chunk);
    if (answers === 0) return;
    const isAwaited = this.#phase.startsWith("awaiting");
    const elapsedMs = now - (isAwaited ? this.#sentAt : this.#answeredAt);
    this.#answeredAt = now;
    switch (this.#phase) {
      case "opening":
        throw new FramesError("foreign", "it answered before anything was said");
      case "awaiting-welcome":
        // It may have had to begin first.
        this.#phase = "idle";
        return;
      case "awaiting-title":
        this.#recordDelay(elapsedMs);
        if (this.#size === 1) this.#phase = answers > 1 ? "stuck" : "probing";
        else this.#phase = this.#size === 0 ? "settling" : "sending";
        return;
      case "probing":
        this.#phase = "stuck";
        return;
      case "awaiting-piece":
        this.#pieceAnswers += answers;
        this.#recordDelay(elapsedMs);
        this.#phase = this.#remainingBytes === 0 ? "settling" : "sending";
        return;
      case "settling":
        this.#pieceAnswers += answers;
        this.#slowestMs = Math.max(elapsedMs, this.#slowestMs);
        return;
      case "sending":
        this.#pieceAnswers += answers;
        return;
      default:
        // An answer to what is settled. Its server's system held it back until we had sent something more.
        this.#slowestMs = Math.max(elapsedMs, this.#slowestMs);
        this.#onSplitPieces();
    }
  }

  /**
   * To be called about once a second.
   *
   * @throws {FramesError} `timeout`
   */
  tick(now: number): void {
    if (!this.#phase.startsWith("awaiting") || now - this.#sentAt < this.#timeoutMs) return;
    const seconds = Math.round(this.#timeoutMs / 100) / 10;
    const what = this.isAccepted ? JSON.stringify(this.#name) : "the header";
    throw new FramesError("timeout", `No answer to ${what} came within ${seconds} s`);
  }
}
