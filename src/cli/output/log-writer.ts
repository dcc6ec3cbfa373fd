/** Non-blocking output of long-running commands, so that a slow log reader cannot delay frames. */

/** Characters queued for the reader at most; further lines are dropped and counted. */
const maxPendingLength = 1 << 20;

/** Time that the reader has at the end to read the rest. */
const endTimeoutMs = 1000;

/** The part of Bun's `FileSink` that `LogWriter` uses. */
export interface LogSink {
  write(text: string): number | Promise<number>;
  /** Returns a promise if the reader has not read everything yet. */
  flush(): number | Promise<number>;
}

/** Writes lines to a file or pipe without waiting for its reader. */
export class LogWriter {
  readonly #sink: LogSink;
  readonly #formatDropped: (lines: number) => string;
  #pending: string[] = [];
  #pendingLength = 0;
  #dropped = 0;
  #writing: Promise<void> | undefined;
  #isClosed = false;

  /** @param formatDropped returns the line that replaces dropped ones; gets their number */
  constructor(sink: LogSink, formatDropped: (lines: number) => string) {
    this.#sink = sink;
    this.#formatDropped = formatDropped;
  }

  /** Writes a line now, queues it behind earlier ones, or drops it if the queue is full. */
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
        // Handle a rejection here, because `Promise.all` below is not reached if `flush` throws.
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

  /** Discards all further output, because writing failed; the command continues without it. */
  #close(): void {
    this.#isClosed = true;
    this.#pending = [];
    this.#writing = undefined;
  }

  /** Resolves when everything is written, after a second at the latest. */
  async end(): Promise<void> {
    const deadline = Bun.sleep(endTimeoutMs).then(() => this.#close());
    while (this.#writing !== undefined) await Promise.race([this.#writing, deadline]);
  }
}
