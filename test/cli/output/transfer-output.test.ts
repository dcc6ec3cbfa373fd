// Messages of `frames send` about frames that --move left in place.

import { describe, expect, test } from "bun:test";
import type { SendSummary } from "../../../src/client/send.ts";
import { emptyCounts } from "../../../src/client/send.ts";
import { parseArguments } from "../../../src/cli/args/arguments.ts";
import { TransferOutput } from "../../../src/cli/output/transfer-output.ts";
import { FramesError } from "../../../src/errors.ts";

/** Reports frames that were not removed, for these errors of the system. Returns the lines. */
function linesFor(...errors: [code: string, message: string][]): string[] {
  let text = "";
  const output = new TransferOutput(parseArguments("send", ["DIR", "--move"], {}), {
    out: () => {},
    err: (more) => void (text += more),
    isLive: false,
    size: () => ({ columns: 80, rows: 24 }),
    colours: false,
    end: () => Promise.resolve(),
  });
  for (const [index, [code, message]] of errors.entries()) {
    const cause = Object.assign(new Error(`${code}: as the system says it`), { code });
    const error = new FramesError("unreadable", message, { cause });
    const name = `${index + 1}.bin`;
    const frame = {
      ...{ name, sequence: index + 1, captured: 1n, size: 1, metadata: "" },
      read: () => {},
      pieces: () => {
        throw new Error("not read");
      },
    };
    output.onEvent({ type: "not-removed", notRemoved: { source: "v", frame, error } });
  }
  const summary: SendSummary = {
    ...emptyCounts,
    ...{ stream: "run7", address: "there", store: "/store", sources: [], undelivered: [] },
    ...{ filteredOut: 0, dropped: 0, reasons: {}, interrupted: false },
    frames: errors.length,
    notRemoved: errors.length,
    sources: [{ progress: { delays: undefined } } as SendSummary["sources"][number]],
  };
  output.printSummary(summary);
  return text.split("\n").filter((line) => line.includes("emoved: "));
}

const readOnly = ["EROFS", "the file system is read-only"] as [string, string];
const denied = ["EACCES", "permission denied"] as [string, string];

describe("frames that --move left in place", () => {
  test("a read-only file system is told on one line, and as the reason in the summary", () => {
    expect(linesFor(readOnly, readOnly, readOnly)).toEqual([
      "Not removed: v/1.bin: the file system is read-only",
      "3 frames not removed: the file system is read-only; --json lists all",
    ]);
  });

  test("files that cannot be removed are listed each, and the summary counts each reason", () => {
    expect(linesFor(denied, readOnly, denied, readOnly)).toEqual([
      "Not removed: v/1.bin: permission denied",
      "Not removed: v/2.bin: the file system is read-only",
      "Not removed: v/3.bin: permission denied",
      "4 frames not removed: permission denied (2), the file system is read-only (2); --json lists all",
    ]);
  });

  test("the summary names three reasons at most", () => {
    const many = ["a", "b", "c", "d"].map((reason): [string, string] => ["EIO", reason]);
    expect(linesFor(...many).at(-1)).toBe(
      "4 frames not removed: a (1), b (1), c (1); --json lists all",
    );
  });
});
