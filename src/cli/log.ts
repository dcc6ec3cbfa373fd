/** The output of a command that runs for years: whoever reads it must never hold up the frames. */

/** Bytes that may wait for the reader of a log; what comes then is counted and dropped. */
const mostWaiting = 1 << 20;

/** Milliseconds that the reader gets for the rest, at the end. */
const endWithin = 1000;

/** Where a log writes: the part of a `FileSink` that it needs. */
export interface LogSink {
  write(text: string): number | Promise<number>;
  /** A promise while the reader has not taken everything. */
  flush(): number | Promise<number>;
}

/** Writes whole lines to a file or pipe without ever waiting for its reader. */
export class Log {
  readonly #sink: LogSink;
  readonly #droppedLine: (lines: number) => string;
  #waiting: string[] = [];
  #waitingLength = 0;
  #dropped = 0;
  #writing: Promise<void> | undefined;
  #closed = false;

  /** @param droppedLine what is written where lines are missing */
  constructor(sink: LogSink, droppedLine: (lines: number) => string) {
    this.#sink = sink;
    this.#droppedLine = droppedLine;
  }

  /** Writes `text`, now or when the reader has taken what is before it. */
  write(text: string): void {
    if (this.#closed) return;
    if (this.#waitingLength + text.length > mostWaiting) {
      this.#dropped++;
      return;
    }
    this.#waiting.push(text);
    this.#waitingLength += text.length;
    this.#pump();
  }

  #pump(): void {
    while (this.#writing === undefined && !this.#closed) {
      const dropped = this.#dropped > 0 ? this.#droppedLine(this.#dropped) : "";
      const text = this.#waiting.join("") + dropped;
      if (text === "") return;
      this.#waiting = [];
      this.#waitingLength = 0;
      this.#dropped = 0;
      try {
        const written = this.#sink.write(text);
        // Should `flush` throw, nobody else would hear of it.
        if (written instanceof Promise) written.catch(() => {});
        const pending = [written, this.#sink.flush()];
        if (!pending.some((result) => result instanceof Promise)) continue;
        this.#writing = Promise.all(pending).then(
          () => this.#written(),
          () => this.#close(),
        );
      } catch {
        this.#close();
      }
    }
  }

  #written(): void {
    this.#writing = undefined;
    this.#pump();
  }

  /** Nobody reads any more: the frames matter more than what is said of them. */
  #close(): void {
    this.#closed = true;
    this.#waiting = [];
    this.#writing = undefined;
  }

  /** Resolves when everything is written, or its reader had a second for it. */
  async end(): Promise<void> {
    const deadline = Bun.sleep(endWithin).then(() => this.#close());
    while (this.#writing !== undefined) await Promise.race([this.#writing, deadline]);
  }
}
