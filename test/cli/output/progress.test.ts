import { afterEach, beforeEach, describe, expect, jest, test } from "bun:test";
import { ProgressDisplay } from "../../../src/cli/output/progress.ts";
import type { Terminal } from "../../../src/cli/output/terminal.ts";

type Sources = Parameters<ProgressDisplay["update"]>[0];
type Source = Sources[number];

/** Returns a source with this progress. */
function source(name: string, more: Partial<Source> = {}): Source {
  const counts = {
    sent: 0,
    settled: 0,
    present: 0,
    removedAtServer: 0,
    refused: 0,
    conflictsSkipped: 0,
    lost: 0,
  };
  const sizes = { bytes: 0, settledBytes: 0, largeFrameSent: 0, largeFrameSize: 0 };
  const live = { capturedCount: 0, dropped: 0, retried: 0, delays: undefined };
  return { name, total: 10, ...counts, ...sizes, ...live, ...more };
}

/** Simulates a terminal: lines, cursor position and all output. */
class Screen implements Terminal {
  columns = 80;
  rows = 24;
  isLive = true;
  colours = false;
  written = "";
  readonly lines: string[] = [""];
  #row = 0;
  #column = 0;

  out(): void {
    throw new Error("progress is no result");
  }

  size(): { columns: number; rows: number } {
    return { columns: this.columns, rows: this.rows };
  }

  async end(): Promise<void> {}

  err(text: string): void {
    this.written += text;
    for (const [part] of text.matchAll(/\x1b\[(\d*)([A-Z])|\n|\r|[^\x1b\n\r]+/g)) {
      if (part === "\n") {
        this.#row++;
        this.#column = 0;
        if (this.#row === this.lines.length) this.lines.push("");
      } else if (part === "\r") this.#column = 0;
      else if (part.startsWith("\x1b[")) this.#obey(part);
      else {
        const line = this.lines[this.#row]!.padEnd(this.#column);
        this.lines[this.#row] =
          line.slice(0, this.#column) + part + line.slice(this.#column + part.length);
        this.#column += part.length;
      }
    }
  }

  #obey(sequence: string): void {
    const count = Number(sequence.slice(2, -1) || 1);
    const kind = sequence.at(-1);
    if (kind === "A") {
      for (let rows = count; rows > 0;) {
        if (--this.#row < 0) throw new Error("the cursor left the screen");
        rows -= this.#rowsOf(this.lines[this.#row]!);
        if (rows < 0) throw new Error("the cursor is within a line that takes several rows");
      }
    } else if (kind === "K") {
      this.lines[this.#row] = this.lines[this.#row]!.slice(0, this.#column);
    } else if (kind === "J") {
      this.lines[this.#row] = this.lines[this.#row]!.slice(0, this.#column);
      this.lines.length = this.#row + 1;
    } else throw new Error(`an unexpected sequence: ${JSON.stringify(sequence)}`);
  }

  /**
   * Rows that a line occupies. A line that is too long wraps, without splitting wide characters.
   */
  #rowsOf(line: string): number {
    let rows = 1;
    let column = 0;
    for (const { segment } of new Intl.Segmenter().segment(line)) {
      const width = Bun.stringWidth(segment);
      if (column > 0 && column + width > this.columns) {
        rows++;
        column = 0;
      }
      column += width;
    }
    return rows;
  }

  /** Non-empty lines. */
  get shown(): string[] {
    return this.lines.filter((line) => line !== "");
  }
}

let now = 0;
let screen: Screen;
let progress: ProgressDisplay;

/** Advances both clocks, of the timer and of the rates. */
function pass(milliseconds: number): void {
  for (let left = milliseconds; left > 0; left -= 100) {
    now += Math.min(100, left);
    jest.advanceTimersByTime(Math.min(100, left));
  }
}

function start(more: Partial<Pick<Screen, "columns" | "rows" | "isLive">> = {}): void {
  screen = Object.assign(new Screen(), more);
  progress = new ProgressDisplay(screen, () => now);
}

beforeEach(() => {
  jest.useFakeTimers();
  now = 5_000_000;
});

afterEach(() => {
  progress.stop();
  expect(jest.getTimerCount()).toBe(0);
  jest.useRealTimers();
});

describe("progress on a terminal", () => {
  test("progress shows nothing before there are sources", () => {
    start();
    pass(1000);
    expect(screen.written).toBe("");
  });

  test("progress is one line for each source, drawn over the last one", () => {
    start();
    const sources = [source("visible"), source("infrared", { total: 20 })];
    progress.update(sources);
    pass(100);
    expect(screen.shown).toEqual([
      "visible     0%  0/10 frames  0 bytes/s  0 bytes",
      "infrared    0%  0/20 frames  0 bytes/s  0 bytes",
      "total       0%  0/30 frames  0 bytes/s  0 bytes",
    ]);
    Object.assign(sources[0]!, { settled: 5, settledBytes: 4_000_000 });
    Object.assign(sources[1]!, { settled: 20, settledBytes: 100 });
    pass(1900);
    expect(screen.shown).toEqual([
      "visible    50%  5/10 frames  2.00 MB/s  0:02 left  4.00 MB",
      "infrared  100%  20/20 frames  50 bytes/s  100 bytes",
      "total      83%  25/30 frames  2.00 MB/s  0:00 left  4.00 MB",
    ]);
  });

  test("progress leaves nothing of a longer line behind", () => {
    start();
    const one = source("visible", { settled: 9, settledBytes: 123_456_789, refused: 3, lost: 1 });
    progress.update([one]);
    pass(2000);
    expect(screen.shown[0]).toEndWith("3 refused  1 not read");
    Object.assign(one, { settled: 0, settledBytes: 0, refused: 0, lost: 0 });
    pass(100);
    expect(screen.shown).toEqual(["visible    0%  0/10 frames  0 bytes/s  0 bytes"]);
  });

  test("progress counts the sent part of a large frame, and lost frames, as done", () => {
    start();
    const large = { largeFrameSent: 250, largeFrameSize: 500 };
    progress.update([source("visible", { settled: 4, settledBytes: 850, lost: 1, ...large })]);
    pass(1100);
    expect(screen.shown).toEqual([
      "visible   55%  4/10 frames  1.00 kB/s  0:01 left  1.10 kB  1 not read",
    ]);
  });

  test("progress counts frames that the server has confirmed, not frames that were sent", () => {
    start();
    const one = source("visible", { sent: 9, bytes: 9_000_000 });
    progress.update([one]);
    pass(2000);
    expect(screen.shown).toEqual(["visible    0%  0/10 frames  0 bytes/s  0 bytes"]);
    Object.assign(one, { settled: 1, settledBytes: 1_000_000 });
    pass(2000);
    expect(screen.shown).toEqual(["visible   10%  1/10 frames  250 kB/s  0:36 left  1.00 MB"]);
  });

  test("progress sums up several sources in a last line, but not a single source", () => {
    start();
    const sources = [
      source("a", { settled: 2, settledBytes: 2_000_000, refused: 1 }),
      source("b", { settled: 1, settledBytes: 500_000, lost: 2, total: 4 }),
      source("c", { largeFrameSent: 300_000, largeFrameSize: 600_000, total: 1 }),
    ];
    progress.update(sources);
    pass(2000);
    expect(screen.shown).toHaveLength(4);
    expect(screen.shown[3]).toBe(
      "total   36%  3/15 frames  1.40 MB/s  0:03 left  2.80 MB  1 refused  2 not read",
    );
    progress.update(sources.slice(0, 1));
    pass(100);
    expect(screen.shown).toHaveLength(1);
  });

  test("progress sums up large frames as parts of their own sources", () => {
    start();
    // Two half-sent frames count as one of four, whatever their sizes.
    progress.update([
      source("a", { total: 1, largeFrameSent: 50, largeFrameSize: 100 }),
      source("b", { total: 1, largeFrameSent: 5_000_000, largeFrameSize: 10_000_000 }),
      source("c", { total: 1, settled: 1, settledBytes: 1_000_000, largeFrameSize: 1_000_000 }),
      source("d", { total: 1 }),
    ]);
    pass(2000);
    expect(screen.shown[4]).toStartWith("total   50%  1/4 frames ");
  });

  test("the total shows no percentage if one source does not know its number of frames", () => {
    start();
    progress.update([source("a", { settled: 3 }), source("b", { settled: 1, total: undefined })]);
    pass(2000);
    expect(screen.shown[2]).toBe("total  4 frames  0 bytes/s  0 bytes");
  });

  test("progress shows no time left while it stops", () => {
    start();
    const sources = [source("a", { settled: 5 }), source("b", { settled: 1 })];
    progress.update(sources);
    pass(2000);
    for (const line of screen.shown) expect(line).toContain(" left");
    progress.onStopping();
    pass(100);
    expect(screen.shown).toEqual([
      "a       50%  5/10 frames  0 bytes/s  0 bytes",
      "b       10%  1/10 frames  0 bytes/s  0 bytes",
      "total   30%  6/20 frames  0 bytes/s  0 bytes",
    ]);
  });

  test("the last drawing of progress shows no time left", () => {
    start();
    progress.update([source("a", { settled: 5 })]);
    pass(2000);
    expect(screen.shown[0]).toContain(" left");
    progress.stop();
    expect(screen.shown).toEqual(["a   50%  5/10 frames  0 bytes/s  0 bytes"]);
  });

  test("progress shows no percentage and no time left if the number of frames is unknown", () => {
    start();
    const unknown = source("camera", { settled: 1, settledBytes: 1000, total: undefined });
    progress.update([unknown]);
    pass(2000);
    expect(screen.shown).toEqual(["camera  1 frame  500 bytes/s  1.00 kB"]);
  });

  test("progress never shows more than 100 %", () => {
    start();
    progress.update([source("visible", { settled: 10, largeFrameSent: 9, largeFrameSize: 10 })]);
    pass(2000);
    expect(screen.shown[0]).toContain(" 100%");
  });

  test("progress makes room for messages, and continues below them", () => {
    start();
    const sources = [source("visible"), source("infrared")];
    progress.update(sources);
    pass(100);
    progress.print("Not sent: \x1b[2Jlink");
    expect(screen.shown).toEqual(["Not sent: \\x1b[2Jlink"]);
    progress.print("and another");
    pass(100);
    expect(screen.shown).toEqual([
      "Not sent: \\x1b[2Jlink",
      "and another",
      expect.stringContaining("visible "),
      expect.stringContaining("infrared "),
      expect.stringContaining("total "),
    ]);
  });

  test("progress is drawn once more at the end, and never again", () => {
    start();
    const one = source("visible");
    progress.update([one]);
    pass(100);
    Object.assign(one, { settled: 10 });
    progress.stop();
    expect(screen.shown).toEqual(["visible  100%  10/10 frames  0 bytes/s  0 bytes"]);
    const { written } = screen;
    pass(10_000);
    expect(screen.written).toBe(written);
    // Later output appears below.
    progress.print("done");
    expect(screen.shown.at(-1)).toBe("done");
    expect(screen.shown).toHaveLength(2);
  });

  for (const columns of [200, 80, 40, 20, 5, 2, 1]) {
    test(`progress is cut to ${columns} columns, and leaves the last column free`, () => {
      start({ columns });
      progress.update([
        source("a name much longer than anybody would think of giving to a source of frames"),
        source("赤外線カメラ", { settled: 3, settledBytes: 1e12, refused: 12 }),
        source("🔥🔥🔥🔥🔥🔥🔥🔥🔥🔥🔥🔥🔥🔥🔥🔥🔥🔥", { settled: 3 }),
      ]);
      pass(3000);
      expect(screen.lines).toHaveLength(5);
      for (const line of screen.lines) {
        expect(line.isWellFormed()).toBe(true);
        expect(Bun.stringWidth(line)).toBeLessThanOrEqual(Math.max(1, columns - 1));
      }
    });
  }

  for (const columns of [60, 30, 29, 11, 7, 2, 1]) {
    test(`progress leaves nothing behind on a terminal that was narrowed to ${columns} columns`, () => {
      start();
      screen.err("before\n");
      const sources = [
        source("visible", { settled: 5, settledBytes: 4_000_000, refused: 3 }),
        source("infrared light", { settled: 10, settledBytes: 123_456 }),
      ];
      progress.update(sources);
      pass(2000);
      expect(screen.shown).toHaveLength(4);
      screen.columns = columns;
      pass(100);
      expect(screen.shown).toHaveLength(4);
      expect(screen.shown[0]).toBe("before");
      for (const line of screen.shown.slice(1)) {
        expect(line.length).toBeLessThanOrEqual(Math.max(1, columns - 1));
      }
      // Also after the terminal is widened again.
      screen.columns = 80;
      pass(100);
      expect(screen.shown).toHaveLength(4);
      expect(screen.shown[3]).toStartWith("total            75%  15/20 frames");
      // A message replaces these lines and no others.
      screen.columns = columns;
      progress.print("a message");
      expect(screen.shown).toEqual(["before", "a message"]);
    });

    if (columns <= 2) continue;
    test(`progress leaves nothing of wide characters behind on ${columns} columns`, () => {
      start();
      screen.err("before\n");
      progress.update([source("赤外線カメラ赤外線カメラ"), source("x🔥y🔥z🔥🔥🔥")]);
      pass(2000);
      expect(screen.shown).toHaveLength(4);
      screen.columns = columns;
      pass(100);
      expect(screen.shown).toHaveLength(4);
      expect(screen.shown[0]).toBe("before");
    });
  }

  test("progress works on a terminal of 0 columns and 0 rows", () => {
    start({ columns: 0, rows: 0 });
    progress.update([source("visible"), source("infrared")]);
    pass(1000);
    for (const line of screen.lines) expect(Bun.stringWidth(line)).toBeLessThanOrEqual(1);
  });

  test("progress never cuts a character in half", () => {
    for (let columns = 3; columns < 50; columns++) {
      start({ columns });
      progress.update([source("a🔥b🔥🔥c🔥".repeat(8))]);
      pass(100);
      for (const line of screen.lines) {
        expect([columns, line.isWellFormed()]).toEqual([columns, true]);
      }
      progress.stop();
    }
  });

  test("progress escapes control characters in a source's name", () => {
    start();
    progress.update([source("a\x1b[2Jb\n")]);
    pass(100);
    expect(screen.shown[0]).toStartWith("a\\x1b[2Jb\\x0a    0%  0/10 frames");
  });

  test("progress aligns its columns, whatever characters the names have", () => {
    start({ columns: 120 });
    progress.update(["a", "赤外線", "a\nb", "x".repeat(60)].map((name) => source(name)));
    pass(100);
    const starts = screen.shown.map((line) => Bun.stringWidth(line.slice(0, line.indexOf("0%"))));
    expect(starts).toHaveLength(5);
    expect(new Set(starts).size).toBe(1);
  });

  test("progress shows the unfinished sources if there is no room for all", () => {
    start({ rows: 8 });
    const sources = Array.from({ length: 40 }, (_, index) => source(`cam-${index}`));
    for (const done of sources.slice(0, 30)) Object.assign(done, { settled: 9, lost: 1 });
    progress.update(sources);
    pass(100);
    expect(screen.shown.map((line) => line.split(" ")[0])).toEqual([
      ...["cam-30", "cam-31", "cam-32", "cam-33"],
      "total",
    ]);
    expect(screen.shown.at(-1)).toBe(
      "total    75%  270/400 frames  0 bytes/s  0 bytes  30 not read",
    );
    // With fewer lines than before, the old ones are cleared.
    for (const done of sources.slice(30, 38)) Object.assign(done, { settled: 10 });
    pass(100);
    expect(screen.shown.map((line) => line.split(" ")[0])).toEqual(["cam-38", "cam-39", "total"]);
    for (const done of sources) Object.assign(done, { settled: 10, lost: 0 });
    pass(100);
    expect(screen.shown).toEqual(["total  100%  400/400 frames  0 bytes/s  0 bytes"]);
  });
});

describe("progress without a terminal", () => {
  test("progress without a terminal is a plain line every ten seconds", () => {
    start({ isLive: false });
    const sources = [source("visible"), source("infrared")];
    progress.update(sources);
    pass(9_900);
    expect(screen.written).toBe("");
    Object.assign(sources[0]!, { settled: 1, settledBytes: 10_000_000 });
    pass(100);
    const [first, second] = [
      "  5%  1/20 frames  1.00 MB/s  3:10 left  10.0 MB\n",
      " 35%  7/20 frames  3.00 MB/s  0:37 left  60.0 MB\n",
    ];
    expect(screen.written).toBe(first);
    Object.assign(sources[1]!, { settled: 6, settledBytes: 50_000_000 });
    pass(10_000);
    expect(screen.written).toBe(first + second);
    pass(30_000);
    expect(screen.written.split("\n")).toHaveLength(6);
  });

  test("progress without a terminal shows no time left while it stops", () => {
    start({ isLive: false });
    progress.update([source("visible", { settled: 1 })]);
    progress.onStopping();
    pass(10_000);
    expect(screen.written).toBe(" 10%  1/10 frames  0 bytes/s  0 bytes\n");
  });

  test("progress without a terminal prints nothing before there are sources", () => {
    start({ isLive: false });
    pass(60_000);
    expect(screen.written).toBe("");
  });

  test("progress without a terminal has no control sequences and no final line", () => {
    start({ isLive: false });
    progress.update([source("visible", { settled: 10 })]);
    progress.print("hello \x1b[2J");
    pass(500);
    progress.stop();
    expect(screen.written).toBe("hello \\x1b[2J\n");
  });
});
