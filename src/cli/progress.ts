/** Progress of a delivery: on a terminal a live line for each source, elsewhere a line now and then. */
import type { SourceProgress } from "../session/outlet.ts";
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
  /** Lines on the terminal that the next drawing replaces. */
  #drawn = 0;
  #said: number;

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

  get sources(): readonly SourceProgress[] {
    return this.#sources;
  }

  /** Says something between two drawings. */
  say(text: string): void {
    this.#erase();
    say(this.#terminal, text);
  }

  /** Draws for the last time. */
  stop(): void {
    clearInterval(this.#timer);
    if (this.#terminal.isLive) this.#draw();
    this.#drawn = 0;
  }

  #tick(): void {
    if (this.#terminal.isLive) return this.#draw();
    const now = this.#now();
    if (now - this.#said < sayEvery || this.#sources.length === 0) return;
    this.#said = now;
    const seconds = (now - this.#started) / 1000;
    let sent = 0;
    let bytes = 0;
    for (const source of this.#sources) {
      sent += source.settled;
      bytes += source.bytes;
    }
    const rate = formatBytes(bytes / seconds);
    say(this.#terminal, `${formatCount(sent, "frame")} confirmed, ${rate}/s`);
  }

  #erase(): void {
    if (this.#drawn > 0) this.#terminal.err(`\x1b[${this.#drawn}A\r\x1b[J`);
    this.#drawn = 0;
  }

  #draw(): void {
    if (this.#sources.length === 0) return;
    const { columns, rows } = this.#terminal.size();
    const seconds = (this.#now() - this.#started) / 1000;
    // The sources still on their way are the ones worth a line, if there is not room for all.
    const room = Math.max(1, Math.min(rows - 3, 16));
    const busy = this.#sources.filter((source) => !isFinished(source));
    const shown =
      this.#sources.length <= room ? this.#sources : busy.slice(0, Math.max(1, room - 1));
    const width = Math.min(
      30,
      Math.max(...shown.map(({ name }) => Bun.stringWidth(printable(name)))),
    );
    const lines = shown.map((source) => describe(source, seconds, width));
    const hidden = this.#sources.length - shown.length;
    if (hidden > 0) lines.push(`and ${formatCount(hidden, "more source")}`);
    const text = lines.map((line) => `${fit(line, columns - 1)}\x1b[K\n`).join("");
    this.#terminal.err((this.#drawn > 0 ? `\x1b[${this.#drawn}A\r` : "") + text);
    if (lines.length < this.#drawn) this.#terminal.err("\x1b[J");
    this.#drawn = lines.length;
  }
}

function isFinished({ settled, lost, total }: SourceProgress): boolean {
  return total !== undefined && settled + lost >= total;
}

function describe(source: SourceProgress, seconds: number, width: number): string {
  const { total, settled, bytes, part, refused, lost } = source;
  const name = pad(fit(printable(source.name), width), width);
  const done = settled + lost + part;
  const share = total === undefined || total === 0 ? undefined : Math.min(1, done / total);
  const parts = [
    total === undefined ? formatCount(settled, "frame") : `${settled}/${total} frames`,
    ...(share === undefined ? [] : [`${Math.floor(share * 100)}%`.padStart(4)]),
    formatBytes(bytes),
    `${formatBytes(seconds > 0 ? bytes / seconds : 0)}/s`,
  ];
  if (share !== undefined && share < 1 && share > 0 && seconds > 1) {
    parts.push(`${formatDuration((seconds * (1 - share)) / share)} left`);
  }
  if (refused > 0) parts.push(`${refused} refused`);
  if (lost > 0) parts.push(`${lost} not read`);
  return `${name}  ${parts.join("  ")}`;
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
