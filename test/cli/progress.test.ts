import { afterEach, beforeEach, describe, expect, jest, test } from "bun:test";
import { Progress } from "../../src/cli/progress.ts";
import type { Terminal } from "../../src/cli/terminal.ts";

type Sources = Parameters<Progress["follow"]>[0];
type Source = Sources[number];

/** A source that has got so far. */
function source(name: string, more: Partial<Source> = {}): Source {
  const nothing = { sent: 0, settled: 0, bytes: 0, part: 0, refused: 0, lost: 0 };
  return { ...nothing, name, total: 10, ...more } as Source;
}

/** What a terminal shows: lines, where the cursor is, and everything that was written. */
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
      this.#row -= count;
      if (this.#row < 0) throw new Error("the cursor left the screen");
    } else if (kind === "K") {
      this.lines[this.#row] = this.lines[this.#row]!.slice(0, this.#column);
    } else if (kind === "J") {
      this.lines[this.#row] = this.lines[this.#row]!.slice(0, this.#column);
      this.lines.length = this.#row + 1;
    } else throw new Error(`a sequence that nobody expects: ${JSON.stringify(sequence)}`);
  }

  /** Lines that hold something. */
  get shown(): string[] {
    return this.lines.filter((line) => line !== "");
  }
}

let now = 0;
let screen: Screen;
let progress: Progress;

/** Lets both clocks run on, that of the timer and that of the rates. */
function pass(milliseconds: number): void {
  for (let left = milliseconds; left > 0; left -= 100) {
    now += Math.min(100, left);
    jest.advanceTimersByTime(Math.min(100, left));
  }
}

function start(more: Partial<Pick<Screen, "columns" | "rows" | "isLive">> = {}): void {
  screen = Object.assign(new Screen(), more);
  progress = new Progress(screen, () => now);
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

describe("on a terminal progress", () => {
  test("shows nothing before there are sources", () => {
    start();
    pass(1000);
    expect(screen.written).toBe("");
  });

  test("is a line for each source, drawn over the last", () => {
    start();
    const sources = [source("visible"), source("infrared", { total: 20 })];
    progress.follow(sources);
    pass(100);
    expect(screen.shown).toEqual([
      "visible   0/10 frames    0%  0 bytes  0 bytes/s",
      "infrared  0/20 frames    0%  0 bytes  0 bytes/s",
    ]);
    Object.assign(sources[0]!, { settled: 5, bytes: 4_000_000 });
    Object.assign(sources[1]!, { settled: 20, bytes: 100 });
    pass(1900);
    expect(screen.shown).toEqual([
      "visible   5/10 frames   50%  4.00 MB  2.00 MB/s  0:02 left",
      "infrared  20/20 frames  100%  100 bytes  50 bytes/s",
    ]);
  });

  test("leaves nothing of a longer line behind", () => {
    start();
    const one = source("visible", { settled: 9, bytes: 123_456_789, refused: 3, lost: 1 });
    progress.follow([one]);
    pass(2000);
    expect(screen.shown[0]).toEndWith("3 refused  1 not read");
    Object.assign(one, { settled: 0, bytes: 0, refused: 0, lost: 0 });
    pass(100);
    expect(screen.shown).toEqual(["visible  0/10 frames    0%  0 bytes  0 bytes/s"]);
  });

  test("counts the part of a large frame, and what is lost, as done", () => {
    start();
    progress.follow([source("visible", { settled: 4, part: 0.5, lost: 1, bytes: 1000 })]);
    pass(1100);
    expect(screen.shown[0]).toContain("4/10 frames   55%");
    expect(screen.shown[0]).toContain("0:01 left");
  });

  test("says no share and no time left where nobody knows the number of frames", () => {
    start();
    const unknown = source("camera", { settled: 1, bytes: 1000 });
    delete (unknown as { total?: number }).total;
    progress.follow([unknown]);
    pass(2000);
    expect(screen.shown).toEqual(["camera  1 frame  1.00 kB  500 bytes/s"]);
  });

  test("never says more than all", () => {
    start();
    progress.follow([source("visible", { settled: 10, part: 0.9 })]);
    pass(2000);
    expect(screen.shown[0]).toContain(" 100%");
  });

  test("makes way for messages, and goes on below them", () => {
    start();
    const sources = [source("visible"), source("infrared")];
    progress.follow(sources);
    pass(100);
    progress.say("Not sent: \x1b[2Jlink");
    expect(screen.shown).toEqual(["Not sent: \\x1b[2Jlink"]);
    progress.say("and another");
    pass(100);
    expect(screen.shown).toEqual([
      "Not sent: \\x1b[2Jlink",
      "and another",
      expect.stringContaining("visible "),
      expect.stringContaining("infrared "),
    ]);
  });

  test("draws once more at the end, and never again", () => {
    start();
    const one = source("visible");
    progress.follow([one]);
    pass(100);
    Object.assign(one, { settled: 10 });
    progress.stop();
    expect(screen.shown).toEqual(["visible  10/10 frames  100%  0 bytes  0 bytes/s"]);
    const { written } = screen;
    pass(10_000);
    expect(screen.written).toBe(written);
    // What is said afterwards stands below.
    progress.say("done");
    expect(screen.shown.at(-1)).toBe("done");
    expect(screen.shown).toHaveLength(2);
  });

  for (const columns of [200, 80, 40, 20, 5, 2, 1]) {
    test(`is cut to ${columns} columns, and leaves the last one free`, () => {
      start({ columns });
      progress.follow([
        source("a name much longer than anybody would think of giving to a source of frames"),
        source("赤外線カメラ", { settled: 3, bytes: 1e12, refused: 12 }),
        source("🔥🔥🔥🔥🔥🔥🔥🔥🔥🔥🔥🔥🔥🔥🔥🔥🔥🔥", { settled: 3 }),
      ]);
      pass(3000);
      expect(screen.lines).toHaveLength(4);
      for (const line of screen.lines) {
        expect(line.isWellFormed()).toBe(true);
        expect(Bun.stringWidth(line)).toBeLessThanOrEqual(Math.max(1, columns - 1));
      }
    });
  }

  test("survives a terminal of 0 columns and 0 rows", () => {
    start({ columns: 0, rows: 0 });
    progress.follow([source("visible"), source("infrared")]);
    pass(1000);
    for (const line of screen.lines) expect(Bun.stringWidth(line)).toBeLessThanOrEqual(1);
  });

  test("never cuts a character in half, wherever a name ends", () => {
    for (let columns = 3; columns < 50; columns++) {
      start({ columns });
      progress.follow([source("a🔥b🔥🔥c🔥".repeat(8))]);
      pass(100);
      for (const line of screen.lines) {
        expect([columns, line.isWellFormed()]).toEqual([columns, true]);
      }
      progress.stop();
    }
  });

  test("shows control characters in a name as what they are", () => {
    start();
    progress.follow([source("a\x1b[2Jb\n")]);
    pass(100);
    expect(screen.shown[0]).toStartWith("a\\x1b[2Jb\\x0a  0/10 frames");
  });

  test("keeps its columns below each other, whatever is in the names", () => {
    start({ columns: 120 });
    progress.follow(["a", "赤外線", "a\nb", "x".repeat(60)].map((name) => source(name)));
    pass(100);
    const starts = screen.shown.map((line) => Bun.stringWidth(line.slice(0, line.indexOf("0/10"))));
    expect(new Set(starts).size).toBe(1);
  });

  test("shows the sources on their way, if there is not room for all", () => {
    start({ rows: 8 });
    const sources = Array.from({ length: 40 }, (_, index) => source(`cam-${index}`));
    for (const done of sources.slice(0, 30)) Object.assign(done, { settled: 9, lost: 1 });
    progress.follow(sources);
    pass(100);
    expect(screen.shown.map((line) => line.split(" ")[0])).toEqual([
      ...["cam-30", "cam-31", "cam-32", "cam-33"],
      "and",
    ]);
    expect(screen.shown.at(-1)).toBe("and 36 more sources");
    // Fewer lines than before leave none of the old ones.
    for (const done of sources.slice(30, 38)) Object.assign(done, { settled: 10 });
    pass(100);
    expect(screen.shown.map((line) => line.split(" ")[0])).toEqual(["cam-38", "cam-39", "and"]);
    for (const done of sources) Object.assign(done, { settled: 10 });
    pass(100);
    expect(screen.shown).toEqual(["and 40 more sources"]);
  });
});

describe("elsewhere progress", () => {
  test("is a plain line every ten seconds", () => {
    start({ isLive: false });
    const sources = [source("visible"), source("infrared")];
    progress.follow(sources);
    pass(9_900);
    expect(screen.written).toBe("");
    Object.assign(sources[0]!, { settled: 1, bytes: 10_000_000 });
    pass(100);
    expect(screen.written).toBe("1 frame confirmed, 1.00 MB/s\n");
    Object.assign(sources[1]!, { settled: 6, bytes: 50_000_000 });
    pass(10_000);
    expect(screen.written).toBe("1 frame confirmed, 1.00 MB/s\n7 frames confirmed, 3.00 MB/s\n");
    pass(30_000);
    expect(screen.written.split("\n")).toHaveLength(6);
  });

  test("says nothing of sources that are not there", () => {
    start({ isLive: false });
    pass(60_000);
    expect(screen.written).toBe("");
  });

  test("has no control sequences, and no last line of its own", () => {
    start({ isLive: false });
    progress.follow([source("visible", { settled: 10 })]);
    progress.say("hello \x1b[2J");
    pass(500);
    progress.stop();
    expect(screen.written).toBe("hello \\x1b[2J\n");
  });
});
