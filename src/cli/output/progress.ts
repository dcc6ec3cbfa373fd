/** Shows the progress of a transfer: live lines on a terminal, else one line every 10 s. */
import { type SourceProgress, totalProgress } from "../../protocol/progress.ts";
import type { LogLevel } from "./log-format.ts";
import { print, type Terminal } from "./terminal.ts";
import { padText } from "../../common/text-columns.ts";
import { printable } from "../../safe-text.ts";
import { formatBytes, formatCount, formatDuration } from "../args/units.ts";

/** Intervals between redraws on a terminal, and between lines elsewhere. */
const drawIntervalMs = 100;
const printIntervalMs = 10_000;

export class ProgressDisplay {
  readonly #terminal: Terminal;
  readonly #now: () => number;
  readonly #startedAt: number;
  readonly #timer: NodeJS.Timeout;
  #sources: readonly SourceProgress[] = [];
  /** Lines on the terminal that the next draw replaces. */
  #drawnLines: string[] = [];
  #printedAt: number;
  /** Time of the next connection attempt, while there is no connection. */
  #nextRetryAt: number | undefined;
  /** Start of the current time without a connection, and the sum of earlier such times. */
  #waitingSince: number | undefined;
  #waitedMs = 0;
  /** Whether the transfer is being stopped, so that no remaining time is shown. */
  #isStopping = false;

  /** @param now monotonic clock in milliseconds */
  constructor(terminal: Terminal, now: () => number) {
    this.#terminal = terminal;
    this.#now = now;
    this.#startedAt = now();
    this.#printedAt = this.#startedAt;
    this.#timer = setInterval(() => this.#tick(), drawIntervalMs);
  }

  /** Sets the sources to show. They are read again for each draw, so they may change in place. */
  update(sources: readonly SourceProgress[]): void {
    this.#sources = sources;
  }

  /** Prints a message above the progress lines. */
  print(text: string, level?: LogLevel): void {
    this.clear();
    print(this.#terminal, text, level);
  }

  /** Erases the progress lines, so that other text can be written in their place. */
  clear(): void {
    this.#terminal.err(this.#eraseSequence());
    this.#drawnLines = [];
  }

  /** @param milliseconds until the next attempt; undefined when there is a connection again */
  setWaiting(milliseconds: number | undefined): void {
    const now = this.#now();
    if (this.#waitingSince !== undefined) this.#waitedMs += now - this.#waitingSince;
    this.#waitingSince = milliseconds === undefined ? undefined : now;
    this.#nextRetryAt = milliseconds === undefined ? undefined : this.#now() + milliseconds;
  }

  /** Hides the remaining time, because the transfer is being stopped. */
  onStopping(): void {
    this.#isStopping = true;
  }

  /** Stops drawing, and erases the progress lines. */
  discard(): void {
    clearInterval(this.#timer);
    this.clear();
  }

  /** Draws once more, and leaves the lines on the terminal. */
  stop(): void {
    clearInterval(this.#timer);
    this.#isStopping = true;
    if (this.#terminal.isLive) this.#draw();
    this.#drawnLines = [];
  }

  #tick(): void {
    if (this.#terminal.isLive) return this.#draw();
    const now = this.#now();
    if (now - this.#printedAt < printIntervalMs || this.#sources.length === 0) return;
    this.#printedAt = now;
    print(
      this.#terminal,
      describeProgress(totalProgress(this.#sources), this.#seconds(), this.#canEstimate),
    );
  }

  /** Whether a remaining time can be shown. */
  get #canEstimate(): boolean {
    return !this.#isStopping && this.#nextRetryAt === undefined;
  }

  /** Seconds since the start, without the time that there was no connection. */
  #seconds(): number {
    const until = this.#waitingSince ?? this.#now();
    return (until - this.#startedAt - this.#waitedMs) / 1000;
  }

  /** Returns the sequence that erases the lines. A terminal made narrower has wrapped them. */
  #eraseSequence(): string {
    const { columns } = this.#terminal.size();
    const rows = this.#drawnLines.reduce((sum, line) => sum + rowCount(line, columns), 0);
    return rows > 0 ? `\x1b[${rows}A\r\x1b[J` : "";
  }

  #waitingLine(): string {
    const seconds = Math.ceil((this.#nextRetryAt! - this.#now()) / 1000);
    return seconds > 0 ? `no connection, next try in ${seconds} s` : "no connection, trying now";
  }

  #draw(): void {
    if (this.#sources.length === 0 && this.#nextRetryAt === undefined) return;
    const { columns, rows } = this.#terminal.size();
    const maxLines = Math.max(1, Math.min(rows - 4, 16));
    // If there is no room for all sources, show only unfinished ones.
    const shown =
      this.#sources.length <= maxLines
        ? [...this.#sources]
        : this.#sources.filter((source) => !isFinished(source)).slice(0, maxLines);
    if (this.#sources.length > 1) shown.push(totalProgress(this.#sources));
    const width = Math.min(
      Math.max(8, Math.floor(columns / 3)),
      Math.max(0, ...shown.map(({ name }) => Bun.stringWidth(printable(name)))),
    );
    const lines = shown.map((source) => {
      const name = padText(truncate(printable(source.name), width), width);
      return truncate(
        `${name}  ${describeProgress(source, this.#seconds(), this.#canEstimate)}`,
        columns - 1,
      );
    });
    if (this.#nextRetryAt !== undefined) lines.push(truncate(this.#waitingLine(), columns - 1));
    this.#terminal.err(this.#eraseSequence() + lines.map((line) => `${line}\n`).join(""));
    this.#drawnLines = lines;
  }
}

function isFinished({ settled, lost, total }: SourceProgress): boolean {
  return total !== undefined && settled + lost >= total;
}

/**
 * Describes confirmed frames, and the sent part of a large frame in flight. The most important
 * parts come first, because the line is cut to the terminal's width.
 */
function describeProgress(source: SourceProgress, seconds: number, canEstimate: boolean): string {
  const {
    total,
    settled,
    settledBytes,
    present,
    removedAtServer,
    largeFrameSent: part,
    largeFrameSize: partOf,
    refused,
  } = source;
  const { lost, dropped } = source;
  const done = settled + lost + (partOf > 0 ? part / partOf : 0);
  const fraction = total === undefined || total === 0 ? undefined : Math.min(1, done / total);
  const bytes = settledBytes + part;
  const parts =
    fraction === undefined
      ? [formatCount(settled, "frame")]
      : [`${Math.floor(fraction * 100)}%`.padStart(4), `${settled}/${total} frames`];
  // Show no rate if the server had all frames already.
  const hasSent = bytes > 0 || present + removedAtServer === 0;
  if (hasSent) parts.push(`${formatBytes(seconds > 0 ? bytes / seconds : 0)}/s`);
  if (canEstimate && fraction !== undefined && fraction < 1 && fraction > 0 && seconds > 1) {
    parts.push(`${formatDuration((seconds * (1 - fraction)) / fraction)} left`);
  }
  if (hasSent) parts.push(formatBytes(bytes));
  if (present > 0) parts.push(`${present} there already`);
  if (removedAtServer > 0) parts.push(`${removedAtServer} moved away`);
  if (refused > 0) parts.push(`${refused} refused`);
  if (lost > dropped) parts.push(`${lost - dropped} not read`);
  if (dropped > 0) parts.push(`${dropped} dropped`);
  return parts.join("  ");
}

/** Returns the rows of a wrapped line. A wide character that does not fit moves to the next row. */
function rowCount(line: string, columns: number): number {
  let rows = 1;
  let column = 0;
  for (const { segment } of new Intl.Segmenter().segment(line)) {
    const width = Bun.stringWidth(segment);
    if (column > 0 && column + width > columns) {
      rows++;
      column = 0;
    }
    column += width;
  }
  return rows;
}

/** Cuts `text` to `width` columns, with an ellipsis. */
function truncate(text: string, width: number): string {
  if (Bun.stringWidth(text) <= width) return text;
  let cut = text;
  while (cut !== "" && Bun.stringWidth(cut) > width - 1) cut = cut.replace(/.$/su, "");
  return `${cut}…`;
}
