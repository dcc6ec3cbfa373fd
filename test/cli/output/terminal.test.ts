import { describe, expect, test } from "bun:test";
import {
  type OverflowPolicy,
  print,
  printError,
  printJson,
  type Terminal,
} from "../../../src/cli/output/terminal.ts";
import { printable } from "../../../src/safe-text.ts";

/** A terminal that records its output. */
function fakeTerminal(colours = false): Terminal & { shown: { out: string; err: string } } {
  const shown = { out: "", err: "" };
  return {
    shown,
    out: (text) => void (shown.out += text),
    err: (text) => void (shown.err += text),
    end: async () => {},
    isLive: false,
    size: () => ({ columns: 80, rows: 24 }),
    colours,
  };
}

describe("printable", () => {
  const plain = [
    "",
    "a b.png",
    "Kühlung 赤外線 صورة 🔥.png",
    "e\u0301",
    "👩‍👩‍👧‍👦",
    "\u00a0",
    "\ufffd",
    "back\\slash",
    "\\x1b",
  ];
  for (const text of plain) {
    test(`the text ${JSON.stringify(text)} is printed as it is`, () =>
      expect(printable(text)).toBe(text));
  }

  const changed: [string, string][] = [
    ["a\nb", "a\\x0ab"],
    ["a\r\tb", "a\\x0d\\x09b"],
    ["\0", "\\x00"],
    ["\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"],
    ["\x7f\x80\x9b31m\x9f", "\\x7f\\x80\\x9b31m\\x9f"],
    ["\u202egnp.exe", "\\u202egnp.exe"],
    ["\u2066a\u2069\u200e\u200f\u061c", "\\u2066a\\u2069\\u200e\\u200f\\u061c"],
    ["a\u2028b\u2029c", "a\\u2028b\\u2029c"],
  ];
  for (const [text, shown] of changed) {
    test(`the text ${JSON.stringify(text)} is printed as ${shown}`, () =>
      expect(printable(text)).toBe(shown));
  }

  test("printable text has no character that a terminal would obey", () => {
    const obeyed = /[\p{Cc}\p{Bidi_Control}\p{Zl}\p{Zp}]/u;
    for (let code = 0; code <= 0xffff; code++) {
      const character = String.fromCharCode(code);
      const shown = printable(`a${character}b`);
      expect([code, obeyed.test(shown)]).toEqual([code, false]);
      expect(shown.length).toBeGreaterThanOrEqual(3);
    }
  });
});

describe("messages", () => {
  test("a message is one line on standard error", () => {
    const terminal = fakeTerminal();
    print(terminal, "stored a\nb");
    expect(terminal.shown).toEqual({ out: "", err: "stored a\\x0ab\n" });
  });

  test("an error message begins with the program's name, in red where the terminal has colours", () => {
    const plain = fakeTerminal();
    printError(plain, "Cannot send \x1b[31mred");
    expect(plain.shown).toEqual({ out: "", err: "frames: Cannot send \\x1b[31mred\n" });
    const coloured = fakeTerminal(true);
    printError(coloured, "no");
    expect(coloured.shown.err).toBe("\x1b[31mframes:\x1b[0m no\n");
  });

  test("a JSON message is one line on standard output, with exact whole numbers", () => {
    const terminal = fakeTerminal();
    printJson(terminal, {
      type: "frame",
      name: "a\nb",
      captured: 1795331523123456789n,
      none: undefined,
    });
    printJson(terminal, { deep: [{ at: -1n }] });
    expect(terminal.shown).toEqual({
      out: '{"type":"frame","name":"a\\nb","captured":"1795331523123456789"}\n{"deep":[{"at":"-1"}]}\n',
      err: "",
    });
  });
});

test("a JSON message has no character that a terminal would obey, and parses to the same object", () => {
  const terminal = fakeTerminal();
  const name = Array.from({ length: 256 }, (_, code) => String.fromCharCode(code)).join("");
  printJson(terminal, { name });
  const line = terminal.shown.out;
  expect(line.slice(0, -1)).not.toMatch(/\p{Cc}/u);
  expect(JSON.parse(line)).toEqual({ name });
});

describe("systemTerminal", () => {
  const program = `
    import { systemTerminal } from ${JSON.stringify(`${import.meta.dir}/../../../src/cli/output/terminal.ts`)};
    const [, results, messages] = process.argv;
    const terminal = systemTerminal(process.env, { results, messages });
    terminal.err("to err\\n");
    terminal.out(JSON.stringify([terminal.isLive, terminal.colours, terminal.size()]) + "\\n");
    await terminal.end();
    process.exit(0);`;

  const plain = { PATH: process.env["PATH"] ?? "", TERM: "xterm" };

  const patiences: OverflowPolicy[] = [
    { results: "wait", messages: "wait" },
    { results: "wait", messages: "drop" },
    { results: "drop", messages: "wait" },
    { results: "drop", messages: "drop" },
  ];
  for (const { results, messages } of patiences) {
    test(`a terminal on a pipe is not live and has 80 columns: results ${results}, messages ${messages}`, () => {
      const command = [process.execPath, "-e", program, results, messages];
      const { stdout, stderr, exitCode } = Bun.spawnSync(command, { env: plain, stdin: "ignore" });
      expect(stdout.toString()).toBe('[false,false,{"columns":80,"rows":24}]\n');
      expect(stderr.toString()).toBe("to err\n");
      expect(exitCode).toBe(0);
    });
  }

  /** Writes 4 MB to one output, then a line to the other, and ends. */
  const talker = `
    import { systemTerminal } from ${JSON.stringify(`${import.meta.dir}/../../../src/cli/output/terminal.ts`)};
    const [, loud, results, messages] = process.argv;
    const terminal = systemTerminal(process.env, { results, messages });
    const write = (text) => (loud === "out" ? terminal.out(text) : terminal.err(text));
    for (let line = 1; line <= 40_000; line++) write(String(line).padEnd(99) + "\\n");
    if (loud === "out") terminal.err("through\\n");
    else terminal.out("through\\n");
    await terminal.end();
    process.exit(0);`;

  /** Starts the talker. The output that gets the 4 MB stays unread. */
  function startTalker(loud: "out" | "err", patience: OverflowPolicy) {
    const { results, messages } = patience;
    const child = Bun.spawn([process.execPath, "-e", talker, loud, results, messages], {
      ...{ env: plain, stdin: "ignore", stdout: "pipe", stderr: "pipe" },
    });
    const [silent, other] =
      loud === "out" ? [child.stdout, child.stderr] : [child.stderr, child.stdout];
    return { child, silent, other };
  }

  for (const loud of ["out", "err"] as const) {
    test(`a terminal that drops output on ${loud} ends although its reader does not read`, async () => {
      const { child, silent, other } = startTalker(loud, { results: "drop", messages: "drop" });
      expect(await new Response(other).text()).toBe("through\n");
      expect(await child.exited).toBe(0);
      await silent.cancel();
    });

    test(`a terminal that drops output on ${loud} says how many lines are missing`, async () => {
      const { child, silent, other } = startTalker(loud, { results: "drop", messages: "drop" });
      // Reading starts only after everything was written, because a fast reader would prevent
      // drops.
      const reader = other.getReader();
      expect(Buffer.from((await reader.read()).value!).toString()).toBe("through\n");
      const text = await new Response(silent).text();
      expect((await reader.read()).done).toBe(true);
      expect(await child.exited).toBe(0);
      const lines = text.split("\n").slice(0, -1);
      const numbers = lines.filter((line) => /^\d+ *$/.test(line)).map(Number);
      const notes = lines.filter((line) => !/^\d+ *$/.test(line));
      expect(numbers).toEqual(numbers.toSorted((a, b) => a - b));
      const missing = notes.map((note) =>
        loud === "out"
          ? (JSON.parse(note) as { type: string; lines: number })
          : { type: "dropped", lines: Number(/^(\d+) lines are missing here/.exec(note)?.[1]) },
      );
      for (const { type } of missing) expect(type).toBe("dropped");
      const dropped = missing.reduce((sum, { lines: count }) => sum + count, 0);
      expect(dropped).toBeGreaterThan(0);
      expect(numbers.length + dropped).toBe(40_000);
    });

    test(`a terminal that waits for the reader of ${loud} loses no line`, async () => {
      const { child, silent, other } = startTalker(loud, { results: "wait", messages: "wait" });
      const text = await new Response(silent).text();
      expect(await new Response(other).text()).toBe("through\n");
      expect(await child.exited).toBe(0);
      const numbers = text.split("\n").slice(0, -1).map(Number);
      expect(numbers).toEqual(Array.from({ length: 40_000 }, (_, index) => index + 1));
    });
  }

  /** Runs a program on a pseudo-terminal of this size and returns its output. */
  async function onTerminal(
    columns: number,
    rows: number,
    more: Record<string, string>,
  ): Promise<string[]> {
    const { promise: said, resolve } = Promise.withResolvers<string>();
    let text = "";
    const terminal = {
      data(_: unknown, bytes: Uint8Array) {
        text += Buffer.from(bytes).toString();
        if (text.includes("]\r\n")) resolve(text);
      },
    };
    // Set explicitly, because a pseudo-terminal may have no size by default.
    const script = `stty cols ${columns} rows ${rows} && exec "$0" -e "$1" wait drop`;
    const child = Bun.spawn(["sh", "-c", script, process.execPath, program], {
      env: { ...plain, ...more },
      terminal,
    });
    try {
      return (await said).split("\r\n");
    } finally {
      child.kill("SIGKILL");
      await child.exited;
      child.terminal?.close();
    }
  }

  const cases: [string, [number, number], Record<string, string>, unknown[]][] = [
    ["is live, in colours and of the size of the terminal", [100, 30], {}, [true, true, 100, 30]],
    ["has 80 columns if the terminal has 0", [0, 0], {}, [true, true, 80, 24]],
    ["has no colours with NO_COLOR", [80, 24], { NO_COLOR: "1" }, [true, false, 80, 24]],
    // As defined by no-color.org.
    ["has colours with an empty NO_COLOR", [80, 24], { NO_COLOR: "" }, [true, true, 80, 24]],
    ["is not live with TERM=dumb", [100, 30], { TERM: "dumb" }, [false, false, 80, 24]],
  ];
  for (const [behaviour, [columns, rows], more, expected] of cases) {
    test.skipIf(process.platform === `output on a terminal ${behaviour}`)(
      `on a terminal ${behaviour}`,
      async () => {
        const [first, second] = await onTerminal(columns, rows, more);
        expect(first).toBe("to err");
        const [isLive, colours, width, height] = expected;
        expect(JSON.parse(second!)).toEqual([isLive, colours, { columns: width, rows: height }]);
      },
    );
  }
});
