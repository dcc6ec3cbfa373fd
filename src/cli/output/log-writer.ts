/** The output of a command that runs for years: whoever reads it must never hold up the frames. */

/** Bytes that may wait for the reader of a log; what comes then is counted and dropped. */
const maxPendingLength = 1 << 20;

/** Milliseconds that the reader gets for the rest, at the end. */
const endTimeoutMs = 1000;

/** Where a log writes: the part of a `FileSink` that it needs. */
export interface LogSink {
  write(text: string): number | Promise<number>;
  /** A promise while the reader has not taken everything. */
  flush(): number | Promise<number>;
}

/** Writes whole lines to a file or pipe without ever waiting for its reader. */
export class LogWriter {
  readonly #sink: LogSink;
  readonly #formatDropped: (lines: number) => string;
  #pending: string[] = [];
  #pendingLength = 0;
  #dropped = 0;
  #writing: Promise<void> | undefined;
  #isClosed = false;

  /** @param formatDropped what is written where lines are missing */
  constructor(sink: LogSink, formatDropped: (lines: number) => string) {
    this.#sink = sink;
    this.#formatDropped = formatDropped;
  }

  /** Writes `text`, now or when the reader has taken what is before it. */
  write(text: string): void {
    if (this.#isClosed) return;
    if (this.#pendingLength + text.length > maxPendingLength) {
      this.#dropped++;
      return;
    }
    this.#pending.push(text);
    this.#pendingLength += text.length;
    this.#pump();
  }

  #pump(): void {
    while (this.#writing === undefined && !this.#isClosed) {
      const dropped = this.#dropped > 0 ? this.#formatDropped(this.#dropped) : "";
      const text = this.#pending.join("") + dropped;
      if (text === "") return;
      this.#pending = [];
      this.#pendingLength = 0;
      this.#dropped = 0;
      try {
        const written = this.#sink.write(text);
        // Should `flush` throw, nobody else would hear of it.
        if (written instanceof Promise) written.catch(() => {});
        const results = [written, this.#sink.flush()];
        if (!results.some((result) => result instanceof Promise)) continue;
        this.#writing = Promise.all(results).then(
          () => this.#onWritten(),
          () => this.#close(),
        );
      } catch {
        this.#close();
      }
    }
  }

  #onWritten(): void {
    this.#writing = undefined;
    this.#pump();
  }

  /** Nobody reads any more: the frames matter more than what is said of them. */
  #close(): void {
    this.#isClosed = true;
    this.#pending = [];
    this.#writing = undefined;
  }

  /** Resolves when everything is written, or its reader had a second for it. */
  async end(): Promise<void> {
    const deadline = Bun.sleep(endTimeoutMs).then(() => this.#close());
    while (this.#writing !== undefined) await Promise.race([this.#writing, deadline]);
  }
}
