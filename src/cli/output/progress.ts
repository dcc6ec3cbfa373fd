/** Progress of a delivery: on a terminal a live line for each source, elsewhere a line now and then. */
import type { SourceProgress } from "../../protocol/send/outgoing-source.ts";
import type { LogLevel } from "./log-format.ts";
import { printable, print, type Terminal } from "./terminal.ts";
import { formatBytes, formatCount, formatDuration } from "../args/units.ts";

/** Milliseconds between two drawings, and between two plain lines. */
const drawIntervalMs = 100;
const printIntervalMs = 10_000;

export class ProgressDisplay {
  readonly #terminal: Terminal;
  readonly #now: () => number;
  readonly #startedAt: number;
  readonly #timer: NodeJS.Timeout;
  #sources: readonly SourceProgress[] = [];
  /** The lines on the terminal that the next drawing replaces. */
  #drawnLines: string[] = [];
  #printedAt: number;
  /** When a connection will be tried again, if there is none. */
  #nextRetryAt: number | undefined;
  /** Since when there is no connection, and milliseconds that there was none before. */
  #waitingSince: number | undefined;
  #waitedMs = 0;
  /** Whether no end can be foretold any more. */
  #isStopping = false;

  /** @param now milliseconds of a steady clock */
  constructor(terminal: Terminal, now: () => number) {
    this.#terminal = terminal;
    this.#now = now;
    this.#startedAt = now();
    this.#printedAt = this.#startedAt;
    this.#timer = setInterval(() => this.#tick(), drawIntervalMs);
  }

  /** How far the sources are; the same objects are looked at again later. */
  update(sources: readonly SourceProgress[]): void {
    this.#sources = sources;
  }

  /** Says something between two drawings. */
  print(text: string, level?: LogLevel): void {
    this.clear();
    print(this.#terminal, text, level);
  }

  /** Takes the last drawing away, so that something else can be written there. */
  clear(): void {
    this.#terminal.err(this.#eraseSequence());
    this.#drawnLines = [];
  }

  /** There is no connection, and none is tried for so many milliseconds; or there is one again. */
  setWaiting(milliseconds: number | undefined): void {
    const now = this.#now();
    if (this.#waitingSince !== undefined) this.#waitedMs += now - this.#waitingSince;
    this.#waitingSince = milliseconds === undefined ? undefined : now;
    this.#nextRetryAt = milliseconds === undefined ? undefined : this.#now() + milliseconds;
  }

  /** Nothing more is begun. */
  onStopping(): void {
    this.#isStopping = true;
  }

  /** Draws nothing more, and takes away what was drawn. */
  discard(): void {
    clearInterval(this.#timer);
    this.clear();
  }

  /** Draws for the last time. */
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
      describeProgress(sumProgress(this.#sources), this.#seconds(), this.#canEstimate),
    );
  }

  /** Whether it can be said when all will be done. */
  get #canEstimate(): boolean {
    return !this.#isStopping && this.#nextRetryAt === undefined;
  }

  #seconds(): number {
    const until = this.#waitingSince ?? this.#now();
    return (until - this.#startedAt - this.#waitedMs) / 1000;
  }

  /** Moves to the first line that was drawn: a terminal made narrower since shows each on several. */
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
    // The sources still on their way are the ones worth a line, if there is not room for all.
    const shown =
      this.#sources.length <= maxLines
        ? [...this.#sources]
        : this.#sources.filter((source) => !isFinished(source)).slice(0, maxLines);
    if (this.#sources.length > 1) shown.push(sumProgress(this.#sources));
    const width = Math.min(
      Math.max(8, Math.floor(columns / 3)),
      Math.max(0, ...shown.map(({ name }) => Bun.stringWidth(printable(name)))),
    );
    const lines = shown.map((source) => {
      const name = pad(truncate(printable(source.name), width), width);
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

/** All sources as one. */
function sumProgress(sources: readonly SourceProgress[]): SourceProgress {
  const sum = (count: (source: SourceProgress) => number) =>
    sources.reduce((total, source) => total + count(source), 0);
  // Half of two frames is one, whatever their sizes.
  const partialFrames = sum(({ largeFrameSent: part, largeFrameSize: partOf }) =>
    partOf > 0 ? part / partOf : 0,
  );
  const part = sum((source) => source.largeFrameSent);
  const isTotalKnown = sources.every(({ total }) => total !== undefined);
  return {
    name: "total",
    total: isTotalKnown ? sum(({ total }) => total!) : undefined,
    capturedCount: sum(({ capturedCount: captured }) => captured),
    sent: sum(({ sent }) => sent),
    bytes: sum(({ bytes }) => bytes),
    settled: sum(({ settled }) => settled),
    settledBytes: sum(({ settledBytes }) => settledBytes),
    present: sum(({ present }) => present),
    removedAtServer: sum(({ removedAtServer: moved }) => moved),
    conflictsSkipped: sum(({ conflictsSkipped: skipped }) => skipped),
    refused: sum(({ refused }) => refused),
    lost: sum(({ lost }) => lost),
    dropped: sum(({ dropped }) => dropped),
    retried: sum(({ retried }) => retried),
    delays: undefined,
    largeFrameSent: part,
    largeFrameSize: partialFrames > 0 ? part / partialFrames : 0,
  };
}

function isFinished({ settled, lost, total }: SourceProgress): boolean {
  return total !== undefined && settled + lost >= total;
}

/** What the server has confirmed; of a large frame on its way, what was sent. The most telling comes first. */
function describeProgress(source: SourceProgress, seconds: number, canEstimate: boolean): string {
  const {
    total,
    settled,
    settledBytes,
    present,
    removedAtServer: moved,
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
  // Where everything was there already, nothing was sent that could have a rate.
  const hasSent = bytes > 0 || present + moved === 0;
  if (hasSent) parts.push(`${formatBytes(seconds > 0 ? bytes / seconds : 0)}/s`);
  if (canEstimate && fraction !== undefined && fraction < 1 && fraction > 0 && seconds > 1) {
    parts.push(`${formatDuration((seconds * (1 - fraction)) / fraction)} left`);
  }
  if (hasSent) parts.push(formatBytes(bytes));
  if (present > 0) parts.push(`${present} there already`);
  if (moved > 0) parts.push(`${moved} moved away`);
  if (refused > 0) parts.push(`${refused} refused`);
  if (lost > dropped) parts.push(`${lost - dropped} not read`);
  if (dropped > 0) parts.push(`${dropped} dropped`);
  return parts.join("  ");
}

/** Rows that a line takes: a wide character that does not fit into one begins the next. */
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

function pad(text: string, width: number): string {
  return text + " ".repeat(Math.max(0, width - Bun.stringWidth(text)));
}

/** `text` cut to `width` columns. */
function truncate(text: string, width: number): string {
  if (Bun.stringWidth(text) <= width) return text;
  let cut = text;
  while (cut !== "" && Bun.stringWidth(cut) > width - 1) cut = cut.replace(/.$/su, "");
  return `${cut}…`;
}
