// Decoding of the article's dialect (SPEC appendix A), independent of how its text is split.

import { describe, expect, test } from "bun:test";
import { FramesError } from "../../src/errors.ts";
import {
  AnswerCounter,
  ArticleDecoder,
  encodeHeader,
  encodeTitle,
} from "../../src/wire/article.ts";

/** A pause in which the client waits for an answer. */
const quiet = null;
type Said = Uint8Array | typeof quiet;

interface ArticleVector {
  /** Test name. */
  name: string;
  /** Bytes sent by the client, as latin1. */
  says: (string | typeof quiet)[];
  /** Decoded events. `ok` is a required answer; `whole` includes the last answer of a picture. */
  means: string[];
  /** Expected error. */
  error?: string;
}

const header: readonly (string | typeof quiet)[] = ["visible|run7", quiet];
const begun = ["header visible run7", "ok"];

const vectors: ArticleVector[] = [
  { name: "a header alone", says: [...header], means: begun },
  {
    name: "a picture of an even length, with an answer to its name and to each half",
    says: [...header, "6|1.jpg", "abc", "def", "over"],
    means: [...begun, "6 1.jpg", "ok", "abc", "ok", "def", "whole", "over"],
  },
  {
    name: "a picture of an odd length, with a third piece of one byte",
    says: [...header, "7|12.png", "abc", "def", "g", "over"],
    means: [...begun, "7 12.png", "ok", "abc", "ok", "def", "ok", "g", "whole", "over"],
  },
  {
    name: "pieces that arrive together with the next picture",
    says: [...header, "4|1.bmp", "abcdcontinue2|2.bmp", "xyover"],
    means: [
      ...[...begun, "4 1.bmp", "ok", "ab", "ok", "cd", "whole"],
      ...["2 2.bmp", "ok", "x", "ok", "y", "whole", "over"],
    ],
  },
  {
    name: "pictures of no byte, and of one, two and three",
    says: [...header, "0|1.pgm", "continue1|2.pgm", "a", "continue2|3.pgmabcontinue3|4.pgmabcover"],
    means: [
      ...[...begun, "0 1.pgm", "whole", "1 2.pgm", "ok", "a", "whole"],
      ...["2 3.pgm", "ok", "a", "ok", "b", "whole"],
      ...["3 4.pgm", "ok", "a", "ok", "b", "ok", "c", "whole", "over"],
    ],
  },
  {
    name: "bytes of a picture that look like text",
    says: [...header, "8|1.jpg", "continueover"],
    means: [...begun, "8 1.jpg", "ok", "cont", "ok", "inue", "whole", "over"],
  },
  {
    name: "capital endings, and leading zeros",
    says: [...header, "002|007.JPG", "abover"],
    means: [...begun, "2 007.JPG", "ok", "a", "ok", "b", "whole", "over"],
  },
  {
    name: "names that only a pause ends",
    says: [
      ...[...header, "2|12.tiff", quiet, "abcontinue2|left eye.jpg", quiet],
      ...["abcontinue2|1.jpeg", quiet, "abover"],
    ],
    means: [
      ...[...begun, "2 12.tiff", "ok", "a", "ok", "b", "whole"],
      ...["2 left eye.jpg", "ok", "a", "ok", "b", "whole"],
      ...["2 1.jpeg", "ok", "a", "ok", "b", "whole", "over"],
    ],
  },
  {
    name: "a name that would lead out of the store",
    says: [...header, "2|../../x", quiet],
    means: [...begun, "2 ../../x", "ok"],
  },
  {
    name: "a name that is not ASCII",
    says: [...header, "2|K\xc3\xa4lte.jpg", quiet],
    means: [...begun, "2 Kälte.jpg", "ok"],
  },
  {
    name: "pauses inside text that marks its own end",
    says: [
      ...header,
      "4",
      quiet,
      "|",
      quiet,
      "1.jpg",
      quiet,
      "a",
      quiet,
      "bcdconti",
      quiet,
      "nue4|",
    ],
    means: [...begun, "4 1.jpg", "ok", "ab", "ok", "cd", "whole"],
  },
  { name: "a folder of no pictures", says: [...header, "over"], means: [...begun, "over"] },
  {
    name: "bytes after over, which it ignores",
    says: [...header, "overover and over"],
    means: [...begun, "over"],
  },
  { name: "pauses before the first byte", says: [quiet, quiet], means: [] },
  { name: "a header of one word", says: ["hello", quiet], means: [], error: "foreign" },
  { name: "a header of three parts", says: ["a|b|"], means: [], error: "foreign" },
  { name: "a header without a kind", says: ["|b", quiet], means: [], error: "foreign" },
  { name: "a header without a folder", says: ["a|", quiet], means: [], error: "foreign" },
  { name: "a header with control characters", says: ["a|b\r"], means: [], error: "foreign" },
  { name: "a header that is not UTF-8", says: ["a|\xff", quiet], means: [], error: "foreign" },
  { name: "a header over 1,024 bytes", says: ["x".repeat(1025)], means: [], error: "foreign" },
  {
    name: "a length that is no number",
    says: [...header, "x"],
    means: begun,
    error: "protocol",
  },
  { name: "a negative length", says: [...header, "-"], means: begun, error: "protocol" },
  { name: "an empty length", says: [...header, "|"], means: begun, error: "protocol" },
  {
    name: "a length of sixteen digits",
    says: [...header, "1234567890123456"],
    means: begun,
    error: "protocol",
  },
  { name: "a name with a |", says: [...header, "1|a|"], means: begun, error: "protocol" },
  {
    name: "a name that is not UTF-8",
    says: [...header, "1|\xff", quiet],
    means: begun,
    error: "protocol",
  },
  {
    name: "a name over 1,024 bytes",
    says: [...header, `1|${"x".repeat(1023)}`],
    means: begun,
    error: "protocol",
  },
  {
    name: "text that is neither continue nor over",
    says: [...header, "0|1.jpg", "cover"],
    means: [...begun, "0 1.jpg", "whole"],
    error: "protocol",
  },
  {
    name: "text that only begins like over",
    says: [...header, "oops"],
    means: begun,
    error: "protocol",
  },
];

/** Decodes these pieces and returns the events and the error. */
function decode(pieces: readonly Said[]): [string[], string | undefined] {
  const meant: string[] = [];
  let left = "";
  const flush = (): void => {
    if (left !== "") meant.push(left);
    left = "";
  };
  const tell = (what: string): void => {
    flush();
    meant.push(what);
  };
  const decoder = new ArticleDecoder({
    onHeader(kind, folder) {
      tell(`header ${kind} ${folder}`);
      tell("ok");
      decoder.onHeaderAnswered();
    },
    onPicture: (size, name) => tell(`${size} ${name}`),
    onPayload: (bytes) => void (left += Buffer.from(bytes).toString("latin1")),
    onAnswerDue: () => tell("ok"),
    onPictureComplete: () => tell("whole"),
    onOver: () => tell("over"),
  });
  let error: string | undefined;
  try {
    for (const piece of pieces) {
      if (piece === quiet) decoder.onQuiet();
      else decoder.receive(piece);
    }
  } catch (caught) {
    if (!(caught instanceof FramesError)) throw caught;
    error = caught.code;
  }
  flush();
  return [meant, error];
}

/** Returns the bytes between pauses. */
function bursts({ says }: ArticleVector): Said[] {
  return says.map((said) => (said === quiet ? said : Buffer.from(said, "latin1")));
}

describe("ArticleDecoder", () => {
  for (const vector of vectors) {
    const expected: [string[], string | undefined] = [vector.means, vector.error];
    const reads = vector.error === undefined ? "reads" : "rejects";

    test(`the article decoder ${reads} ${vector.name}, at every split`, () => {
      const whole = bursts(vector);
      expect(decode(whole)).toEqual(expected);
      for (const [index, burst] of whole.entries()) {
        if (burst === quiet) continue;
        for (let at = 1; at < burst.length; at++) {
          const cut = [burst.subarray(0, at), burst.subarray(at)];
          const split = [...whole.slice(0, index), ...cut, ...whole.slice(index + 1)];
          expect([at, decode(split)]).toEqual([at, expected]);
        }
      }
    });

    test(`the article decoder ${reads} ${vector.name}, byte by byte and all at once`, () => {
      const bytes = bursts(vector).flatMap<Said>((burst) =>
        burst === quiet ? [burst] : Array.from(burst, (byte) => Uint8Array.of(byte)),
      );
      expect(decode(bytes)).toEqual(expected);
      const joined = bursts(vector).reduce<Said[]>((all, burst) => {
        const last = all.at(-1);
        if (burst === quiet || last === undefined || last === quiet) return [...all, burst];
        return [...all.slice(0, -1), Buffer.concat([last, burst])];
      }, []);
      expect(decode(joined)).toEqual(expected);
    });
  }

  test("the article decoder fails when a client sends more before its header is answered", () => {
    const decoder = new ArticleDecoder({
      onHeader() {},
      onPicture() {},
      onPayload() {},
      onAnswerDue() {},
      onPictureComplete() {},
      onOver() {},
    });
    decoder.receive(encodeHeader("visible", "run7"));
    decoder.onQuiet();
    expect(() => decoder.receive(encodeTitle(1, "1.jpg"))).toThrow(FramesError);
  });

  test("the article decoder reads what the article encoder writes", () => {
    const said = [encodeHeader("infrared", "Nacht"), quiet, encodeTitle(0, "3.raw")] as const;
    expect(decode(said)[0]).toEqual(["header infrared Nacht", "ok", "0 3.raw", "whole"]);
  });
});

describe("AnswerCounter", () => {
  test("the counter of answers counts them however they are split or joined", () => {
    for (const pieces of [["okokok"], ["o", "kok", "o", "k"], ["ok", "", "ok", "ok"]]) {
      const counter = new AnswerCounter();
      const counted = pieces.map((piece) => counter.count(Buffer.from(piece)));
      expect(counted.reduce((sum, count) => sum + count, 0)).toBe(3);
    }
  });

  test("the counter of answers rejects any text but ok", () => {
    for (const said of ["no", "oko ", "OK", "kok", "FRAMES/1"]) {
      expect(() => new AnswerCounter().count(Buffer.from(said))).toThrow(FramesError);
    }
  });
});
