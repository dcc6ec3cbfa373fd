import { afterEach, describe, expect, jest, spyOn, test } from "bun:test";
import { LogWriter, type LogSink } from "../../../src/cli/output/log-writer.ts";

/** Characters buffered for a slow reader. */
const most = 1 << 20;

afterEach(() => void jest.useRealTimers());

/** A sink whose reader reads only on demand. */
class SlowSink implements LogSink {
  /** Text of each write. */
  readonly taken: string[] = [];
  flushes = 0;
  /** Whether the reader reads at once. */
  isRead = false;
  #reading: PromiseWithResolvers<number> | undefined;

  write(text: string): number {
    if (this.#reading !== undefined) throw new Error("written to while it was being read");
    this.taken.push(text);
    return text.length;
  }

  flush(): number | Promise<number> {
    this.flushes++;
    if (this.isRead) return 0;
    this.#reading = Promise.withResolvers();
    return this.#reading.promise;
  }

  /** Reads what was written. */
  async read(): Promise<void> {
    const reading = this.#reading;
    this.#reading = undefined;
    reading?.resolve(0);
    await settled();
  }

  /** Closes the reading side. */
  async leave(): Promise<void> {
    const reading = this.#reading;
    this.#reading = undefined;
    reading?.reject(new Error("EPIPE: broken pipe"));
    await settled();
  }

  get text(): string {
    return this.taken.join("");
  }
}

/** Lets settled promises continue. */
async function settled(): Promise<void> {
  for (let turn = 0; turn < 20; turn++) await Promise.resolve();
}

const dropped = (lines: number): string => `(${lines} dropped)\n`;

function logTo(sink: LogSink): LogWriter {
  return new LogWriter(sink, dropped);
}

/** Returns the milliseconds that `log` takes to end. */
function endOf(log: LogWriter): {
  ended: Promise<void>;
  isOver(): boolean;
  given: number[];
  pass(): void;
} {
  const given: number[] = [];
  const { promise, resolve } = Promise.withResolvers<void>();
  const spy = spyOn(Bun, "sleep").mockImplementation((milliseconds) => {
    given.push(Number(milliseconds));
    return promise;
  });
  let isOver = false;
  const ended = log.end().then(() => void (isOver = true));
  spy.mockRestore();
  return { ended, isOver: () => isOver, given, pass: resolve };
}

describe("LogWriter", () => {
  test("a log writes each line at once while its reader reads", () => {
    const sink = Object.assign(new SlowSink(), { isRead: true });
    const log = logTo(sink);
    for (const line of ["one\n", "two\n", "three\n"]) log.write(line);
    expect(sink.taken).toEqual(["one\n", "two\n", "three\n"]);
    expect(sink.flushes).toBe(3);
  });

  test("a log never waits for its reader, and hands over nothing more before the reader has read", async () => {
    const sink = new SlowSink();
    const log = logTo(sink);
    for (let line = 0; line < 1000; line++) log.write(`${line}\n`);
    expect(sink.taken).toEqual(["0\n"]);
    await settled();
    expect(sink.taken).toEqual(["0\n"]);
    await sink.read();
    expect(sink.taken).toHaveLength(2);
    expect(sink.text).toBe(Array.from({ length: 1000 }, (_, line) => `${line}\n`).join(""));
    await sink.read();
    expect(sink.taken).toHaveLength(2);
  });

  test("a log works with a sink that returns a promise from write only", async () => {
    const { promise, resolve } = Promise.withResolvers<number>();
    const taken: string[] = [];
    const log = logTo({ write: (text) => (taken.push(text), promise), flush: () => 0 });
    log.write("one\n");
    log.write("two\n");
    expect(taken).toEqual(["one\n"]);
    resolve(0);
    await settled();
    expect(taken).toEqual(["one\n", "two\n"]);
  });

  test("a log keeps 1 MiB for a slow reader, drops the rest, and says how many lines it dropped", async () => {
    const sink = new SlowSink();
    const log = logTo(sink);
    const line = `${"x".repeat(1023)}\n`;
    log.write("first\n");
    for (let count = 0; count < most / line.length; count++) log.write(line);
    for (let count = 0; count < 5000; count++) log.write(line);
    expect(sink.text).toBe("first\n");
    await sink.read();
    expect(sink.text).toBe(`first\n${line.repeat(1024)}(5000 dropped)\n`);
    // Buffer and counter start from zero again.
    for (let count = 0; count < 1024 + 7; count++) log.write(line);
    await sink.read();
    expect(sink.taken.at(-1)).toBe(`${line.repeat(1024)}(7 dropped)\n`);
    // Once there is space again, lines are written without a note about dropped ones.
    log.write("last\n");
    await sink.read();
    expect(sink.taken.at(-1)).toBe("last\n");
  });

  test("a log counts every line that it drops, however its reader reads", async () => {
    const sink = new SlowSink();
    const log = logTo(sink);
    const width = 10_000;
    let written = 0;
    for (let round = 0; round < 30; round++) {
      for (let count = 0; count < (round * 37) % 210; count++) {
        log.write(`${String(++written).padEnd(width - 1)}\n`);
      }
      if (round % 3 === 0) await sink.read();
    }
    for (let round = 0; round < 3; round++) await sink.read();
    const lines = sink.text.split("\n").slice(0, -1);
    const notes = lines.filter((line) => line.startsWith("("));
    const missing = notes.map((line) => Number(/^\((\d+) dropped\)$/.exec(line)![1]));
    const numbers = lines.filter((line) => !line.startsWith("(")).map(Number);
    expect(numbers).toEqual([...new Set(numbers)].sort((a, b) => a - b));
    expect(notes.length).toBeGreaterThan(2);
    expect(numbers.length + missing.reduce((sum, count) => sum + count, 0)).toBe(written);
    for (const part of sink.taken) expect(part.length).toBeLessThanOrEqual(most + 100);
  });

  test("a log drops a line over 1 MiB, and says so with the next line", () => {
    const sink = Object.assign(new SlowSink(), { isRead: true });
    const log = logTo(sink);
    log.write(`${"x".repeat(most)}\n`);
    log.write("after\n");
    expect(sink.text).toBe("after\n(1 dropped)\n");
  });
});

describe("LogWriter without a reader", () => {
  test("a log whose reader has closed writes nothing more, and ends at once", async () => {
    const sink = new SlowSink();
    const log = logTo(sink);
    log.write("one\n");
    log.write("two\n");
    await sink.leave();
    for (let line = 0; line < 100; line++) log.write("more\n");
    await settled();
    expect(sink.text).toBe("one\n");
    await endOf(log).ended;
  });

  for (const method of ["write", "flush"] as const) {
    test(`a log whose sink throws in ${method} writes nothing more, and ends at once`, async () => {
      const sink = Object.assign(new SlowSink(), { isRead: true });
      sink[method] = () => {
        throw new Error("EPIPE: broken pipe");
      };
      const log = logTo(sink);
      expect(() => log.write("one\n")).not.toThrow();
      expect(() => log.write("two\n")).not.toThrow();
      expect(sink.taken.length).toBeLessThanOrEqual(1);
      await endOf(log).ended;
    });
  }

  test("a log whose sink rejects a write leaves no unhandled rejection", async () => {
    const unhandled: unknown[] = [];
    const note = (reason: unknown): void => void unhandled.push(reason);
    process.on("unhandledRejection", note);
    try {
      // Like a pipe without a reader: the write fails, and the flush succeeds or fails.
      for (const flush of [() => 0, () => Promise.reject(new Error("EPIPE"))]) {
        const log = logTo({ write: () => Promise.reject(new Error("EPIPE")), flush });
        log.write("one\n");
        await new Promise(setImmediate);
        log.write("two\n");
        await log.end();
      }
      await new Promise(setImmediate);
      expect(unhandled).toEqual([]);
    } finally {
      process.off("unhandledRejection", note);
    }
  });
});

describe("LogWriter.end", () => {
  test("a log ends at once when its reader has read everything", async () => {
    const sink = Object.assign(new SlowSink(), { isRead: true });
    const log = logTo(sink);
    log.write("one\n");
    await endOf(log).ended;
    await endOf(logTo(new SlowSink())).ended;
  });

  test("a log ends only after its reader has taken everything", async () => {
    const sink = new SlowSink();
    const log = logTo(sink);
    log.write("one\n");
    log.write("two\n");
    let ended = false;
    const ending = log.end().then(() => (ended = true));
    await settled();
    expect(ended).toBe(false);
    await sink.read();
    expect(sink.text).toBe("one\ntwo\n");
    expect(ended).toBe(false);
    await sink.read();
    await ending;
    expect(sink.text).toBe("one\ntwo\n");
  });

  test("a log that ends says how many lines it dropped", async () => {
    const sink = new SlowSink();
    const log = logTo(sink);
    log.write("one\n");
    log.write(`${"x".repeat(most)}\n`);
    const ending = log.end();
    await sink.read();
    await sink.read();
    await ending;
    expect(sink.text).toBe("one\n(1 dropped)\n");
  });

  test("a log ends after a second if its reader does not read, and then writes nothing more", async () => {
    const sink = new SlowSink();
    const log = logTo(sink);
    log.write("one\n");
    log.write("two\n");
    const end = endOf(log);
    await settled();
    expect([end.given, end.isOver()]).toEqual([[1000], false]);
    end.pass();
    await end.ended;
    await sink.read();
    log.write("three\n");
    await settled();
    expect(sink.text).toBe("one\n");
  });

  test("a log ends after a second even if its reader still reads slowly", async () => {
    const sink = new SlowSink();
    const log = logTo(sink);
    let line = 0;
    log.write("first\n");
    const end = endOf(log);
    // There is always more.
    for (; line < 20; line++) {
      log.write(`${line}\n`);
      await sink.read();
    }
    expect(sink.taken.length).toBeGreaterThan(5);
    expect([end.given, end.isOver()]).toEqual([[1000], false]);
    end.pass();
    await end.ended;
  });
});
