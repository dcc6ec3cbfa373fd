import { describe, expect, test } from "bun:test";
import { compareNatural } from "../../../src/source/files/natural-order.ts";

/**
 * Splits a name into its sort keys: a number for each run of digits, a code for each other
 * character.
 */
function parts(name: string): (bigint | number)[] {
  return (name.match(/[0-9]+|[^]/g) ?? []).map((part) =>
    /^[0-9]/.test(part) ? BigInt(part) : part.charCodeAt(0),
  );
}

/** Returns the count of leading zeros of each number. */
function zeros(name: string): number[] {
  return (name.match(/[0-9]+/g) ?? []).map((run) => run.length - BigInt(run).toString().length);
}

/** Natural order, slow and obvious. */
function oracle(a: string, b: string): number {
  const [left, right] = [parts(a), parts(b)];
  for (let index = 0; index < Math.min(left.length, right.length); index++) {
    const [one, other] = [left[index]!, right[index]!];
    if (typeof one === typeof other) {
      if (one !== other) return one < other ? -1 : 1;
      continue;
    }
    // A number sorts among characters as a digit does.
    const character = typeof one === "number" ? one : (other as number);
    return character < 0x30 === (typeof one === "number") ? -1 : 1;
  }
  if (left.length !== right.length) return left.length - right.length;
  // With equal values fewer zeros come first, and the last number decides.
  const [few, many] = [zeros(a), zeros(b)];
  for (let index = few.length - 1; index >= 0; index--) {
    if (few[index] !== many[index]) return few[index]! - many[index]!;
  }
  return 0;
}

/** Returns a generator of numbers in [0, 1), deterministic for a seed. */
function generator(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Returns names in which all relevant cases are frequent. */
function randomNames(count: number, random: () => number): string[] {
  const alphabet = [
    "0",
    "0",
    "0",
    "1",
    "1",
    "2",
    "9",
    "a",
    "b",
    ".",
    "-",
    "_",
    "é",
    "😀",
    "/",
    ":",
  ];
  return Array.from({ length: count }, () => {
    const length = Math.floor(random() * 9);
    return Array.from({ length }, () => alphabet[Math.floor(random() * alphabet.length)]).join("");
  });
}

const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 31));

describe("compareNatural", () => {
  test("natural order puts 10 after 9", () => {
    const names = Array.from({ length: 121 }, (_, index) => `${index}.png`);
    expect(names.toReversed().sort(compareNatural)).toEqual(names);
  });

  const sorted: [string, string[]][] = [
    ["numbers within names by value", ["cam1-9.png", "cam1-10.png", "cam2-1.png", "cam10-1.png"]],
    [
      "a shorter name before a longer one that begins with it",
      ["", "1", "1.", "1.png", "1.png.1", "1a", "2"],
    ],
    [
      "numbers with leading zeros after the same number without",
      ["1", "01", "001", "2", "02", "10", "010"],
    ],
    ["the text after a number before its leading zeros", ["1a", "01a", "1b", "01b", "1c"]],
    ["numbers of only zeros by their length", ["0", "00", "000", "1"]],
    ["digits before letters and after dots", ["a.png", "a1.png", "aa.png"]],
    ["letters by their code", ["A", "B", "a", "b", "é"]],
    ["numbers with common leading digits by value", ["1002", "1010", "10020", "10100"]],
    ["times of day", ["2026-11-22T07:12:00.png", "2026-11-22T07:12:01.png", "2026-11-22T11:12:00"]],
    ["a minus sign as a character", ["-1", "-2", "-10", "1"]],
    ["digits of other scripts as characters", ["9", "10", "\u0661", "\u0662"]],
  ];
  for (const [what, names] of sorted) {
    test(`natural order sorts ${what}`, () => {
      expect(names.toReversed().sort(compareNatural)).toEqual(names);
    });
  }

  test("natural order compares numbers of any length exactly", () => {
    const big = "123456789012345678901234567890";
    const names = [
      "9.png",
      "9007199254740992.png",
      "9007199254740993.png",
      `${big}.png`,
      `000${big}.png`,
      `${big.slice(0, -1)}1.png`,
      `1${big}.png`,
      `${"9".repeat(250)}.png`,
    ];
    expect(names.toReversed().sort(compareNatural)).toEqual(names);
  });

  test(`natural order agrees with the oracle for random names, seed ${seed}`, () => {
    const random = generator(seed);
    const names = [...new Set(randomNames(600, random))];
    for (const a of names) {
      for (const b of names) {
        const sign = Math.sign(compareNatural(a, b));
        if (sign !== Math.sign(oracle(a, b))) expect([a, b, sign]).toEqual([a, b, oracle(a, b)]);
      }
    }
    const shuffled = names.toSorted(() => random() - 0.5);
    expect(shuffled.sort(compareNatural)).toEqual(names.toSorted(oracle));
  });

  test(`natural order is a total order: different names differ, and it is transitive, seed ${seed}`, () => {
    const names = [...new Set(randomNames(120, generator(seed + 1)))];
    for (const a of names) {
      expect(compareNatural(a, a)).toBe(0);
      for (const b of names) {
        const sign = Math.sign(compareNatural(a, b));
        if (a !== b && sign === 0) expect([a, b]).toEqual(["different", "names"]);
        // Adding 0 turns -0 into 0.
        if (sign !== -Math.sign(compareNatural(b, a)) + 0) expect([a, b]).toEqual(["one", "sign"]);
        if (sign > 0) continue;
        for (const c of names) {
          if (compareNatural(b, c) <= 0 && compareNatural(a, c) > 0) {
            expect([a, b, c]).toEqual(["in", "one", "order"]);
          }
        }
      }
    }
  });
});
