/**
 * The sending end of the article's dialect (SPEC appendix A), without I/O. The server answers each
 * `recv` of up to half a picture. It takes the bytes of one `recv` for one step. So a piece is sent
 * only after an answer to the piece before. The next step is sent only after the answers have
 * stopped.
 */
import { FramesError } from "../../errors.ts";
import { AnswerCounter, encodeHeader, encodeStep, encodeTitle } from "../../wire/article.ts";

/** What the caller must do next. */
export type ArticleStep =
  | { readonly action: "send"; readonly bytes: Uint8Array; readonly what: string }
  /** Wait for an answer until this time, in ms; `Infinity` without a limit. */
  | { readonly action: "wait"; readonly until: number }
  /** The picture was read: call `begin` for the next one, or `finish`. */
  | { readonly action: "next" }
  /** More bytes of the picture are needed: call `pushPayload`. */
  | { readonly action: "give" }
  /** The server answers endlessly to a picture of one byte and takes nothing more. */
  | { readonly action: "stuck" }
  | { readonly action: "done" };

/**
 * Limits of a piece, in bytes. The lower one fits into one packet on every path, so that one `recv`
 * reads the whole piece. Pieces grow on a path that delivers larger ones whole.
 */
const minPieceBytes = 1200;
const maxPieceBytes = 32 << 10;

/** Pieces of a picture that must be answered once each before pieces grow. */
const minPiecesToGrow = 4;

/**
 * Pauses in ms. `settleMs` without an answer means that the picture was read. `gapMs` is the
 * least time between `continue` and the next text. `totalMs` is the least time between the last
 * answer and the next text. `maxExtraMs` limits the time added for jitter and
 * for storing the picture.
 *
 * The server must read `continue` and the next text separately, and nothing confirms that it has.
 * The article's own client is delayed there by 40 ms, because its system waits for the server's ACK
 * of `continue`. The short pauses are just above that. They apply to pictures of at most
 * `largePictureBytes`, on a path that delivers pieces whole.
 */
const shortPauses = { settleMs: 4, gapMs: 36, totalMs: 41, maxExtraMs: 0 } as const;
const longPauses = { settleMs: 15, gapMs: 50, totalMs: 65, maxExtraMs: Infinity } as const;
const largePictureBytes = 200_000;

/** Pieces that must be answered once each before a path is trusted to deliver pieces whole. */
const minTrustedPieces = 20;

/** Speed at which a server is assumed to store a picture, in bytes per ms. */
const storedBytesPerMs = 100_000;

/**
 * Time in ms in which a server that answers endlessly would have answered again. Its system delays
 * the second answer until the client's ACK of the first, which takes 40 ms.
 */
const probeMs = 200;

/**
 * Time in ms without an answer to a piece within a half, after which the sender goes on up to the
 * half, because `frames serve --article` answers halves only. Another server may have stalled for
 * that long, so its answers to this picture must then have stopped for as long. A server counts as
 * one that answers halves only after `minSilentPictures` such pictures.
 */
const halvesProbeMs = 1000;
const minSilentPictures = 2;

/** Upper bound of each computed pause, in ms. */
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
  /** The current picture: name, size in bytes, and bytes not sent yet. */
  #name = "";
  #size = 0;
  #remainingBytes = 0;
  #payload = new Uint8Array(0);
  #pieceSize = minPieceBytes;
  /** Pieces answered once each so far; `-Infinity` after a piece was answered twice. */
  #wholePieces = 0;
  /** Pieces of the current picture that were sent, and answers to them. */
  #pieces = 0;
  #pieceAnswers = 0;
  /** Times of the last send and of the last answer, in ms. */
  #sentAt = 0;
  #answeredAt = 0;
  /**
   * Longest and shortest recent delay of an answer, in ms. Their difference is the expected jitter.
   */
  #slowestMs = 0;
  #fastestMs = Infinity;
  /** Time at which `continue` was sent, in ms; 0 before. */
  #continuedAt = 0;
  /** Time at which the picture was announced, in ms; duration and size of the picture before. */
  #announcedAt = 0;
  #lastDurationMs = 0;
  #lastSize = 0;
  #isFirst = true;
  /** What the server answers: each `recv`, or the halves and the end of a picture. */
  #answersTo: "unknown" | "recv" | "halves" = "unknown";
  /** Whether a piece within a half of this picture had no answer in time. */
  #isProbed = false;
  #silentPictures = 0;

  constructor(kind: string, folder: string, timeoutMs: number) {
    this.#header = { kind, folder };
    this.#timeoutMs = timeoutMs;
  }

  /** Whether the server has answered the header. */
  get isAccepted(): boolean {
    return this.#phase !== "opening" && this.#phase !== "awaiting-welcome";
  }

  /** Bytes sent of the current picture. */
  get sent(): number {
    return this.#size - this.#remainingBytes;
  }

  /** Begins a picture of `size` bytes. */
  begin(size: number, name: string): void {
    this.#name = name;
    this.#size = this.#remainingBytes = size;
    this.#payload = new Uint8Array(0);
    this.#pieces = this.#pieceAnswers = 0;
    this.#isProbed = false;
    this.#phase = "apart";
  }

  /**
   * Provides the next bytes of the picture. The caller must not change them until the picture is
   * settled.
   */
  pushPayload(bytes: Uint8Array<ArrayBuffer>): void {
    this.#payload = bytes;
  }

  /** Ends the conversation with `over`; no picture follows. */
  finish(): void {
    this.#phase = "closing";
  }

  /**
   * Returns what to do at `now`. Call it again when that is done and after each `receive`. All
   * times are in ms of one monotonic clock.
   */
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
      case "awaiting-piece": {
        if (this.#answersTo !== "unknown" || this.#isHalfComplete) break;
        const until = this.#sentAt + Math.max(halvesProbeMs, 4 * this.#slowestMs);
        if (now < until) return { action: "wait", until };
        this.#isProbed = true;
        this.#pieces--;
        this.#phase = "sending";
        return this.step(now);
      }
      case "awaiting-welcome":
      case "awaiting-title":
    }
    // `tick` checks the timeout.
    return { action: "wait", until: Infinity };
  }

  #send(bytes: Uint8Array, what: string, now: number): ArticleStep {
    this.#sentAt = now;
    return { action: "send", bytes, what };
  }

  /** Sends `continue`, and after a pause the text that announces the picture. */
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
    const half = this.#halfBytes;
    const isForHalves = this.#isProbed || this.#answersTo === "halves";
    const maxBytes = isForHalves ? half - (this.sent % half) : Math.min(this.#pieceSize, half);
    const piece = this.#payload.subarray(0, Math.min(maxBytes, this.#remainingBytes));
    this.#payload = this.#payload.subarray(piece.length);
    this.#remainingBytes -= piece.length;
    if (!isForHalves || this.#isHalfComplete) {
      this.#pieces++;
      this.#phase = "awaiting-piece";
    }
    return this.#send(piece, `${piece.length} bytes`, now);
  }

  /** Half of the picture, rounded down; 1 for a picture of one byte. */
  get #halfBytes(): number {
    return Math.max(1, Math.floor(this.#size / 2));
  }

  /** Whether the last piece completes a half or the picture. */
  get #isHalfComplete(): boolean {
    return this.#remainingBytes === 0 || this.sent % this.#halfBytes === 0;
  }

  /** Expected variation of answer delays, in ms. */
  get #jitterMs(): number {
    return Math.max(0, this.#slowestMs - this.#fastestMs);
  }

  #recordDelay(delayMs: number): void {
    this.#slowestMs = Math.max(this.#slowestMs, delayMs);
    this.#fastestMs = Math.min(this.#fastestMs, delayMs);
  }

  /** Returns the pauses after a picture of `size` bytes. */
  #pauses(size: number): typeof shortPauses | typeof longPauses {
    return this.#wholePieces >= minTrustedPieces && size <= largePictureBytes
      ? shortPauses
      : longPauses;
  }

  /** Time at which the answers count as stopped if no more arrive, in ms. */
  get #quietAt(): number {
    if (this.#isProbed) return this.#answeredAt + halvesProbeMs;
    const { settleMs, maxExtraMs } = this.#pauses(this.#size);
    return (
      this.#answeredAt + Math.min(settleMs + Math.min(maxExtraMs, 2 * this.#jitterMs), maxPauseMs)
    );
  }

  /**
   * Handles the end of a picture. More answers than pieces mean that pieces were split on the way.
   */
  #finishPicture(): void {
    if (this.#isProbed) this.#onProbed(this.#pieceAnswers === this.#pieces);
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

  /** @param hasAnsweredHalves whether each half and the end had one answer */
  #onProbed(hasAnsweredHalves: boolean): void {
    if (!hasAnsweredHalves) this.#answersTo = "recv";
    else if (++this.#silentPictures >= minSilentPictures) this.#answersTo = "halves";
  }

  /**
   * Reduces the piece size and disables the short pauses for the rest of the connection, because
   * the path splits pieces.
   */
  #onSplitPieces(): void {
    this.#pieceSize = Math.max(minPieceBytes, this.#pieceSize >> 1);
    this.#wholePieces = -Infinity;
  }

  /**
   * Processes bytes from the server.
   *
   * @throws {FramesError} `foreign` if they are not answers
   */
  receive(chunk: Uint8Array, now: number): void {
    const answers = this.#answers.count(chunk);
    if (answers === 0) return;
    const isAwaited = this.#phase.startsWith("awaiting");
    const elapsedMs = now - (isAwaited ? this.#sentAt : this.#answeredAt);
    this.#answeredAt = now;
    switch (this.#phase) {
      case "opening":
        throw new FramesError("foreign", "it answered before a header was sent");
      case "awaiting-welcome":
        // The delay of this answer is not recorded, because the server may have started up first.
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
        if (!this.#isHalfComplete || answers > 1) this.#answersTo = "recv";
        this.#pieceAnswers += answers;
        this.#recordDelay(elapsedMs);
        this.#phase = this.#remainingBytes === 0 ? "settling" : "sending";
        return;
      case "settling":
        this.#pieceAnswers += answers;
        this.#slowestMs = Math.max(elapsedMs, this.#slowestMs);
        return;
      case "sending":
        // It answered late, and not only halves.
        this.#answersTo = "recv";
        this.#pieceAnswers += answers;
        return;
      default:
        // A late answer to a picture that counted as read. The server's system delayed it until the
        // next bytes arrived.
        this.#slowestMs = Math.max(elapsedMs, this.#slowestMs);
        this.#onSplitPieces();
    }
  }

  /**
   * Checks the timeout of an awaited answer. Call it about once a second.
   *
   * @throws {FramesError} `timeout`
   */
  tick(now: number): void {
    if (!this.#phase.startsWith("awaiting") || now - this.#sentAt < this.#timeoutMs) return;
    const seconds = Math.round(this.#timeoutMs / 100) / 10;
    const what = this.isAccepted ? JSON.stringify(this.#name) : "the header";
    throw new FramesError("timeout", `No answer to ${what} arrived within ${seconds} s`);
  }
}
