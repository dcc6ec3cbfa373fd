// Report on each source, at the end of a delivery and during it.

import { describe, expect, test } from "bun:test";
import {
  droppedLine,
  sourceReportJson,
  sourceReportLine,
} from "../../../src/cli/output/source-report.ts";
import type { SourceReport } from "../../../src/client/undelivered.ts";
import { DelayHistogram } from "../../../src/protocol/delay-histogram.ts";

type Progress = SourceReport["progress"];

/** Returns a source with this progress. */
function report(
  progress: Partial<Progress> = {},
  more: Partial<Omit<SourceReport, "progress">> = {},
): SourceReport {
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
  return {
    progress: { name: "cam", total: undefined, ...counts, ...sizes, ...live, ...progress },
    captured: 0,
    gaps: [],
    moreGaps: 0,
    seconds: 0,
    ...more,
  };
}

function delays(...milliseconds: number[]): DelayHistogram {
  const made = new DelayHistogram();
  for (const delay of milliseconds) made.add(delay);
  return made;
}

function dropped(...ranges: [first: number, last: number][]): SourceReport["gaps"] {
  return ranges.map(([first, last]) => ({ first, last, error: "dropped" as const }));
}

describe("sourceReportLine", () => {
  test("the report line of a source has its captured and delivered frames, and the rate", () => {
    const settled = { settled: 60, sent: 60 };
    expect(sourceReportLine(report(settled, { captured: 60, seconds: 10 }))).toBe(
      "cam: 60 captured, 60 delivered, 6.0/s",
    );
    // No division by zero.
    expect(sourceReportLine(report(settled, { captured: 60 }))).toBe(
      "cam: 60 captured, 60 delivered",
    );
    expect(sourceReportLine(report())).toBe("cam: 0 captured, 0 delivered");
  });

  test("the report line counts as delivered only the frames that the server has", () => {
    const progress = { settled: 100, refused: 10, removedAtServer: 20, conflictsSkipped: 30 };
    expect(sourceReportLine(report(progress, { captured: 100 }))).toBe(
      "cam: 100 captured, 40 delivered, 10 refused",
    );
  });

  test("the report line has median and 99th percentile of the delay, in fitting units", () => {
    const cases: [number[], string][] = [
      [[5, 5, 5], "delay 5.0 ms median, 5.0 ms p99"],
      [[250, 250], "delay 250 ms median, 250 ms p99"],
      [[20_000], "delay 20 s median, 20 s p99, 1 late"],
      // The clocks disagree.
      [[-500], "delay 0.1 ms median, 0.1 ms p99"],
    ];
    for (const [given, told] of cases) {
      const line = sourceReportLine(report({ delays: delays(...given) }));
      const numbers = (text: string) => [...text.matchAll(/[\d.]+/g)].map(([number]) => +number);
      expect(line.replace(/[\d.]+/g, "N")).toBe(
        `cam: 0 captured, 0 delivered, ${told}`.replace(/[\d.]+/g, "N"),
      );
      const expected = numbers(told);
      for (const [index, number] of numbers(line).slice(2).entries()) {
        // The histogram's buckets are 5 % wide.
        expect(Math.abs(number / expected[index]! - 1)).toBeLessThan(0.06);
      }
    }
    expect(sourceReportLine(report({ delays: delays() }))).toBe("cam: 0 captured, 0 delivered");
  });

  test("the report line counts frames with a delay over one second as late", () => {
    const line = sourceReportLine(report({ delays: delays(10, 20, 900, 1200, 5000) }));
    expect(line).toEndWith(", 2 late");
  });

  test("the report line counts frames that were sent again, refused or not read", () => {
    const progress = { settled: 7, retried: 3, refused: 2, lost: 5, dropped: 1 };
    expect(sourceReportLine(report(progress, { captured: 12, gaps: dropped([4, 4]) }))).toBe(
      "cam: 12 captured, 5 delivered, 3 sent again, 2 refused, 4 not read, 1 dropped (4)",
    );
  });

  test("the report line lists dropped frames by number, ten ranges at most", () => {
    const told = (gaps: SourceReport["gaps"], moreGaps = 0) => {
      return sourceReportLine(report({ lost: 9, dropped: 9 }, { gaps, moreGaps })).split(
        "delivered, ",
      )[1];
    };
    expect(told(dropped([2, 2], [5, 12]))).toBe("9 dropped (2, 5-12)");
    const ten = Array.from({ length: 10 }, (_, index): [number, number] => [3 * index, 3 * index]);
    expect(told(dropped(...ten))).toBe("9 dropped (0, 3, 6, 9, 12, 15, 18, 21, 24, 27)");
    expect(told(dropped(...ten, [40, 41]))).toBe(
      "9 dropped (0, 3, 6, 9, 12, 15, 18, 21, 24, 27, …)",
    );
    expect(told(dropped([1, 5]), 7)).toBe("9 dropped (1-5, …)");
  });

  test("the report line lists only the dropped frames among all gaps", () => {
    const gaps = [{ first: 1, last: 3, error: "vanished" as const }, ...dropped([7, 8])];
    const line = sourceReportLine(report({ lost: 5, dropped: 2 }, { gaps }));
    expect(line).toContain("3 not read");
    expect(line).toContain("2 dropped (7-8");
    expect(line).not.toContain("1-3");
  });

  test("the report counts pictures that may be damaged, if there are any", () => {
    const damaged = report({ settled: 9, maybeDamaged: 2 });
    expect(sourceReportLine(damaged)).toBe("cam: 0 captured, 9 delivered, 2 possibly damaged");
    expect(sourceReportJson(damaged)).toMatchObject({ maybeDamaged: 2 });
    expect(sourceReportJson(report({ maybeDamaged: 0 }))).not.toHaveProperty("maybeDamaged");
  });

  test("the report line escapes control characters in a source's name", () => {
    expect(sourceReportLine(report({ name: "a\x1b[31m\u202eb" }))).toBe(
      "a\\x1b[31m\\u202eb: 0 captured, 0 delivered",
    );
  });
});

describe("sourceReportJson", () => {
  test("the report object of a source has its counts, and no rate or delay if unknown", () => {
    const progress = {
      settled: 50,
      sent: 48,
      refused: 4,
      removedAtServer: 3,
      conflictsSkipped: 2,
      bytes: 999,
    };
    const counts = { lost: 6, dropped: 5, retried: 1 };
    expect(sourceReportJson(report({ ...progress, ...counts }, { captured: 56 }))).toEqual({
      ...{ name: "cam", captured: 56, sent: 48, frames: 41, bytes: 999 },
      ...{ refused: 4, lost: 6, dropped: 5, retried: 1, gaps: [] },
    });
  });

  test("the report object has rate, delays and late frames where they are known", () => {
    const made = delays(100, 100, 100, 3000);
    const json = sourceReportJson(
      report({ settled: 4, delays: made }, { captured: 4, seconds: 2 }),
    );
    expect(json).toMatchObject({
      rate: 2,
      late: 1,
      delay: { median: made.quantileMs(0.5), p99: made.quantileMs(0.99) },
    });
    // Captures frames, but none has been delivered.
    const none = sourceReportJson(report({ delays: delays() }));
    expect(none).toMatchObject({ late: 0 });
    expect(none).not.toHaveProperty("delay");
    expect(none).not.toHaveProperty("rate");
  });

  test("the report object has the known gaps with their reasons, and the number of others", () => {
    const gaps = [...dropped([2, 4]), { first: 9, last: 9, error: "vanished" as const }];
    const json = sourceReportJson(report({}, { gaps, moreGaps: 12 }));
    expect(json).toMatchObject({
      gaps: [
        [2, 4, "dropped"],
        [9, 9, "vanished"],
      ],
      moreGaps: 12,
    });
    expect(sourceReportJson(report({}, { gaps }))).not.toHaveProperty("moreGaps");
  });

  test("the report object can be written as JSON", () => {
    const made = report({ delays: delays(5) }, { gaps: dropped([1, 2]), seconds: 1 });
    const json = sourceReportJson(made);
    expect(JSON.parse(JSON.stringify(json))).toEqual(json as object);
  });
});

test("frames dropped by --policy are summed up in one line", () => {
  expect(droppedLine(1)).toBe("1 frame dropped because of --policy");
  expect(droppedLine(20)).toBe("20 frames dropped because of --policy");
});
