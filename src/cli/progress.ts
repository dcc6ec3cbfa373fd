/** Progress of a delivery: on a terminal a live line for each source, elsewhere a line now and then. */
import type { SourceProgress } from "../session/outlet.ts";
import type { Level } from "./lines.ts";
import { printable, say, type Terminal } from "./terminal.ts";
import { formatBytes, formatCount, formatDuration } from "./units.ts";

/** Milliseconds between two drawings, and between two plain lines. */
const drawEvery = 100;
const sayEvery = 10_000;

export class Progress {
  readonly #terminal: Terminal;
  readonly #now: () => number;
  readonly #started: number;
  readonly #timer: NodeJS.Timeout;
  #sources: readonly SourceProgress[] = [];
  /** The lines on the terminal that the next drawing replaces. */
  #drawn: string[] = [];
  #said: number;
  /** When a connection will be tried again, if there is none. */
  #nextTry: number | undefined;
  /** Since when there is no connection, and milliseconds that there was none before. */
  #waitingSince: number | undefined;
  #waited = 0;
  /** Whether no end can be foretold any more. */
  #isStopping = false;

  /** @param now milliseconds of a steady clock */
  constructor(terminal: Terminal, now: () => number) {
    this.#terminal = terminal;
    this.#now = now;
    this.#started = now();
    this.#said = this.#started;
    this.#timer = setInterval(() => this.#tick(), drawEvery);
  }

  /** How far the sources are; the same objects are looked at again later. */
  follow(sources: readonly SourceProgress[]): void {
    this.#sources = sources;
  }

  /** Says something between two drawings. */
  say(text: string, level?: Level): void {
    this.clear();
    say(this.#terminal, text, level);
  }

  /** Takes the last drawing away, so that something else can be written there. */
  clear(): void {
    this.#terminal.err(this.#erasure());
    this.#drawn = [];
  }

  /** There is no connection, and none is tried for so many milliseconds; or there is one again. */
  waiting(milliseconds: number | undefined): void {
    const now = this.#now();
    if (this.#waitingSince !== undefined) this.#waited += now - this.#waitingSince;
    this.#waitingSince = milliseconds === undefined ? undefined : now;
    this.#nextTry = milliseconds === undefined ? undefined : this.#now() + milliseconds;
  }

  /** Nothing more is begun. */
  stopping(): void {
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
    this.#drawn = [];
  }

  #tick(): void {
    if (this.#terminal.isLive) return this.#draw();
    const now = this.#now();
    if (now - this.#said < sayEvery || this.#sources.length === 0) return;
    this.#said = now;
    say(this.#terminal, describe(sumUp(this.#sources), this.#seconds(), this.#foretells));
  }

  /** Whether it can be said when all will be done. */
  get #foretells(): boolean {
    return !this.#isStopping && this.#nextTry === undefined;
  }

  #seconds(): number {
    const until = this.#waitingSince ?? this.#now();
    return (until - this.#started - this.#waited) / 1000;
  }

  /** Moves to the first line that was drawn: a terminal made narrower since shows each on several. */
  #erasure(): string {
    const { columns } = this.#terminal.size();
    const rows = this.#drawn.reduce((sum, line) => sum + rowsOf(line, columns), 0);
    return rows > 0 ? `\x1b[${rows}A\r\x1b[J` : "";
  }

  #waitingLine(): string {
    const seconds = Math.ceil((this.#nextTry! - this.#now()) / 1000);
    return seconds > 0 ? `no connection, next try in ${seconds} s` : "no connection, trying now";
  }

  #draw(): void {
    if (this.#sources.length === 0 && this.#nextTry === undefined) return;
    const { columns, rows } = this.#terminal.size();
    const room = Math.max(1, Math.min(rows - 4, 16));
    // The sources still on their way are the ones worth a line, if there is not room for all.
    const shown =
      this.#sources.length <= room
        ? [...this.#sources]
        : this.#sources.filter((source) => !isFinished(source)).slice(0, room);
    if (this.#sources.length > 1) shown.push(sumUp(this.#sources));
    const width = Math.min(
      Math.max(8, Math.floor(columns / 3)),
      Math.max(0, ...shown.map(({ name }) => Bun.stringWidth(printable(name)))),
    );
    const lines = shown.map((source) => {
      const name = pad(fit(printable(source.name), width), width);
      return fit(`${name}  ${describe(source, this.#seconds(), this.#foretells)}`, columns - 1);
    });
    if (this.#nextTry !== undefined) lines.push(fit(this.#waitingLine(), columns - 1));
    this.#terminal.err(this.#erasure() + lines.map((line) => `${line}\n`).join(""));
    this.#drawn = lines;
  }
}

/** All sources as one. */
function sumUp(sources: readonly SourceProgress[]): SourceProgress {
  const sum = (count: (source: SourceProgress) => number) =>
    sources.reduce((total, source) => total + count(source), 0);
  // Half of two frames is one, whatever their sizes.
  const begun = sum(({ part, partOf }) => (partOf > 0 ? part / partOf : 0));
  const part = sum((source) => source.part);
  const known = sources.every(({ total }) => total !== undefined);
  return {
    name: "total",
    total: known ? sum(({ total }) => total!) : undefined,
    captured: sum(({ captured }) => captured),
    sent: sum(({ sent }) => sent),
    bytes: sum(({ bytes }) => bytes),
    settled: sum(({ settled }) => settled),
    settledBytes: sum(({ settledBytes }) => settledBytes),
    present: sum(({ present }) => present),
    moved: sum(({ moved }) => moved),
    skipped: sum(({ skipped }) => skipped),
    refused: sum(({ refused }) => refused),
    lost: sum(({ lost }) => lost),
    dropped: sum(({ dropped }) => dropped),
    retried: sum(({ retried }) => retried),
    delays: undefined,
    part,
    partOf: begun > 0 ? part / begun : 0,
  };
}

function isFinished({ settled, lost, total }: SourceProgress): boolean {
  return total !== undefined && settled + lost >= total;
}

/** What the server has confirmed; of a large frame on its way, what was sent. The most telling comes first. */
function describe(source: SourceProgress, seconds: number, foretell: boolean): string {
  const { total, settled, settledBytes, present, moved, part, partOf, refused } = source;
  const { lost, dropped } = source;
  const done = settled + lost + (partOf > 0 ? part / partOf : 0);
  const share = total === undefined || total === 0 ? undefined : Math.min(1, done / total);
  const bytes = settledBytes + part;
  const parts =
    share === undefined
      ? [formatCount(settled, "frame")]
      : [`${Math.floor(share * 100)}%`.padStart(4), `${settled}/${total} frames`];
  // Where everything was there already, nothing was sent that could have a rate.
  const isSent = bytes > 0 || present + moved === 0;
  if (isSent) parts.push(`${formatBytes(seconds > 0 ? bytes / seconds : 0)}/s`);
  if (foretell && share !== undefined && share < 1 && share > 0 && seconds > 1) {
    parts.push(`${formatDuration((seconds * (1 - share)) / share)} left`);
  }
  if (isSent) parts.push(formatBytes(bytes));
  if (present > 0) parts.push(`${present} there already`);
  if (moved > 0) parts.push(`${moved} moved away`);
  if (refused > 0) parts.push(`${refused} refused`);
  if (lost > dropped) parts.push(`${lost - dropped} not read`);
  if (dropped > 0) parts.push(`${dropped} dropped`);
  return parts.join("  ");
}

/** Rows that a line takes: a wide character that does not fit into one begins the next. */
function rowsOf(line: string, columns: number): number {
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
function fit(text: string, width: number): string {
  if (Bun.stringWidth(text) <= width) return text;
  let cut = text;
  while (cut !== "" && Bun.stringWidth(cut) > width - 1) cut = cut.replace(/.$/su, "");
  return `${cut}…`;
}
