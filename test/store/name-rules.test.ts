import { describe, expect, test } from "bun:test";
import type { FramesError } from "../../src/errors.ts";
import { checkPathPart, foldPath, sourceFolderPath } from "../../src/store/name-rules.ts";
import { thrownCode } from "./contract.ts";

const unsafe: [what: string, part: string][] = [
  ["the empty name", ""],
  ["the folder itself", "."],
  ["the folder above", ".."],
  ["three dots", "..."],
  ["a hidden name", ".hidden"],
  ["the store's own folder", ".frames"],
  ["an absolute path", "/etc/passwd"],
  ["a path", "a/b"],
  ["a path upwards", "../a"],
  ["a slash at the end", "a/"],
  ["a drive", "C:"],
  ["a drive in lower case", "z:"],
  ["a path on a drive", "C:\\a"],
  ["a UNC path", "\\\\server\\share"],
  ["a backslash", "a\\b"],
  ["a backslash upwards", "..\\a"],
  ["NUL", "a\0.png"],
  ["a tab", "a\tb"],
  ["a line feed", "a\nb"],
  ["a carriage return", "a\rb"],
  ["an escape", "\x1b[2Ja"],
  ["the first C0 control character", "\x00"],
  ["the last C0 control character", "a\x1f"],
  ["DEL", "a\x7f"],
  ["the first C1 control character", "a\x80"],
  ["the C1 control character CSI", "a\x9b2J"],
  ["the last C1 control character", "a\x9f"],
  ["a name of 256 bytes", "x".repeat(256)],
  ["a name of 256 bytes in 128 characters", "é".repeat(128)],
  ["a name of 256 bytes in 86 characters", `${"€".repeat(85)}x`],
  ["a name of 256 bytes in 64 characters outside the BMP", "😀".repeat(64)],
  ["a name of a million bytes", "x".repeat(1_000_000)],
  ["a lone high surrogate", "a\ud800b"],
  ["a lone low surrogate", "\udc00"],
  ["a high surrogate at the end", "a\ud83d"],
  ["surrogates in the wrong order", "\ude00\ud83d"],
];

const unportable: [what: string, part: string][] = [
  ["CON", "CON"],
  ["con in lower case", "con"],
  ["PRN with an extension", "prn.png"],
  ["AUX with two extensions", "Aux.tar.gz"],
  ["NUL with an extension", "nul.txt"],
  ["COM1 with an extension", "com1.log"],
  ["COM0", "COM0"],
  ["LPT9 with an extension", "LPT9.txt"],
  ["COM with a superscript digit", "com².png"],
  ["LPT with a superscript digit", "LPT³"],
  ["CONIN$", "CONIN$"],
  ["CONOUT$ with an extension", "conout$.png"],
  ["a dot at the end", "a."],
  ["dots at the end", "a.."],
  ["a space at the end", "a.png "],
  ["a single space", " "],
  ["a file on a drive", "C:a.png"],
  ["an alternate data stream", "a:b"],
  ["a time of day", "2026-11-22T07:12:00.png"],
  ...[...'<>:"|?*'].map((character): [string, string] => [character, `a${character}b.png`]),
];

const good: [what: string, part: string][] = [
  ["the name of an image", "1.png"],
  ["a single character", "a"],
  ["a name without an extension", "frame"],
  ["spaces inside a name", "my frame 1.png"],
  ["a space at the start", " a.png"],
  ["dots inside a name", "a..b...png"],
  ["an umlaut", "Kühlung.png"],
  ["Japanese", "赤外線.png"],
  ["Arabic", "صورة.png"],
  ["a decomposed umlaut", "Ku\u0308hlung.png"],
  ["an emoji", "🔥.png"],
  ["an emoji of many code points", "👩‍👩‍👧‍👦.png"],
  ["a no-break space at the end", "a\u00a0"],
  ["a replacement character", "a\ufffd.png"],
  ["a name of 255 bytes", "x".repeat(255)],
  ["a name of 255 bytes in 128 characters", `${"é".repeat(127)}x`],
  ["a name of 255 bytes in 85 characters", "€".repeat(85)],
  ["a name of 255 bytes that ends with an emoji", `${"x".repeat(251)}😀`],
  ["quotes and brackets", "it's [1] {2} (3) #4 %5 &6 ~7 $8 !9 `0`.png"],
  ["a dash at the start", "-rf"],
  ["a name that begins like a device", "console.png"],
  ["a device name without its digit", "com.png"],
  ["a device name with two digits", "com12"],
  ["a device name as extension", "a.con"],
  ["a property name of JavaScript", "__proto__"],
];

describe("checkPathPart for every system", () => {
  for (const [what, part] of unsafe) {
    test(`checkPathPart always refuses ${what}`, () => {
      expect(thrownCode(() => checkPathPart(part, false))).toBe("bad-name");
      expect(thrownCode(() => checkPathPart(part, true))).toBe("bad-name");
    });
  }

  test("checkPathPart refuses every control character at every position", () => {
    for (let code = 0; code <= 0x9f; code++) {
      if (code >= 0x20 && code < 0x7f) continue;
      const character = String.fromCharCode(code);
      for (const part of [character, `${character}a`, `a${character}`, `a${character}b`]) {
        expect([code, thrownCode(() => checkPathPart(part, false))]).toEqual([code, "bad-name"]);
      }
    }
  });

  test("the error for a refused name is one short line without control characters", () => {
    for (const [, part] of unsafe) {
      let message = "";
      try {
        checkPathPart(part, false);
      } catch (error) {
        message = (error as FramesError).message;
      }
      expect(message.length).toBeLessThan(700);
      expect(message).not.toMatch(/[\x00-\x1f]/);
    }
  });
});

describe("checkPathPart for portable names", () => {
  for (const [what, part] of unportable) {
    test(`checkPathPart refuses ${what} only if names must be portable`, () => {
      expect(thrownCode(() => checkPathPart(part, false))).toBeUndefined();
      expect(thrownCode(() => checkPathPart(part, true))).toBe("unportable-name");
    });
  }
});

describe("checkPathPart for valid names", () => {
  for (const [what, part] of good) {
    test(`checkPathPart accepts ${what}`, () => {
      expect(thrownCode(() => checkPathPart(part, false))).toBeUndefined();
      expect(thrownCode(() => checkPathPart(part, true))).toBeUndefined();
    });
  }
});

describe("sourceFolderPath", () => {
  test("the folder of a source named like its stream is the folder of the stream", () => {
    expect(sourceFolderPath("run7", "run7", false)).toBe("run7");
  });

  test("the folder of every other source is below the folder of the stream", () => {
    expect(sourceFolderPath("run7", "visible", false)).toBe("run7/visible");
    expect(sourceFolderPath("run7", "a/b/c", false)).toBe("run7/a/b/c");
    expect(sourceFolderPath("run7", "run7/run7", false)).toBe("run7/run7/run7");
  });

  test("the name of a stream is a single path part", () => {
    for (const stream of ["", ".", "..", "a/b", "/a", "a\\b", ".frames"]) {
      expect(thrownCode(() => sourceFolderPath(stream, "visible", false))).toBe("bad-name");
      expect(thrownCode(() => sourceFolderPath(stream, stream, false))).toBe("bad-name");
    }
  });

  test("each part of a source name must be a valid name", () => {
    for (const [, part] of unsafe) {
      if (part.includes("/")) continue;
      for (const source of [part, `a/${part}`, `${part}/a`, `a/${part}/b`]) {
        expect([source, thrownCode(() => sourceFolderPath("run7", source, false))]).toEqual([
          source,
          "bad-name",
        ]);
      }
    }
    for (const [, part] of unportable) {
      expect(thrownCode(() => sourceFolderPath("run7", `a/${part}/b`, false))).toBeUndefined();
      expect(thrownCode(() => sourceFolderPath("run7", `a/${part}/b`, true))).toBe(
        "unportable-name",
      );
      expect(thrownCode(() => sourceFolderPath(part, "a", true))).toBe("unportable-name");
    }
  });

  test("a source name with an empty part is refused", () => {
    for (const source of ["", "/", "/a", "a/", "a//b"]) {
      expect(thrownCode(() => sourceFolderPath("run7", source, false))).toBe("bad-name");
    }
  });

  test("a source name has at most 32 parts", () => {
    const parts = (count: number) => Array.from({ length: count }, () => "a").join("/");
    expect(thrownCode(() => sourceFolderPath("run7", parts(32), false))).toBeUndefined();
    expect(thrownCode(() => sourceFolderPath("run7", parts(33), false))).toBe("bad-name");
  });

  test("a source name has at most 1,024 bytes", () => {
    // 4 * 255 bytes and 3 slashes are 1,023.
    const source = Array.from({ length: 4 }, () => "x".repeat(255)).join("/");
    expect(thrownCode(() => sourceFolderPath("run7", source, false))).toBeUndefined();
    expect(thrownCode(() => sourceFolderPath("run7", `${source}/`, false))).toBe("bad-name");
    expect(thrownCode(() => sourceFolderPath("run7", `${source}/x`, false))).toBe("bad-name");
    const wide = Array.from({ length: 5 }, () => "é".repeat(102)).join("/");
    expect(thrownCode(() => sourceFolderPath("run7", wide, false))).toBeUndefined();
    expect(thrownCode(() => sourceFolderPath("run7", `${wide}é`, false))).toBe("bad-name");
  });
});

describe("foldPath", () => {
  const same: [string, string][] = [
    ["a.png", "A.PNG"],
    ["run7/visible/1.png", "Run7/VISIBLE/1.Png"],
    ["é.png", "e\u0301.png"],
    ["É.png", "e\u0301.png"],
    ["Å", "\u212b"],
    ["Ω", "\u2126"],
    ["ß", "SS"],
    ["σ", "Σ"],
    ["ς", "σ"],
    ["µ", "μ"],
    ["ſ", "s"],
    ["K", "\u212a"],
    ["ﬁ.png", "FI.png"],
    ["ạ\u0302", "ậ"],
    ["a\u0323\u0302", "a\u0302\u0323"],
  ];
  for (const [a, b] of same) {
    test(`${JSON.stringify(a)} and ${JSON.stringify(b)} fold to the same path`, () => {
      expect(foldPath(a)).toBe(foldPath(b));
    });
  }

  const different: [string, string][] = [
    ["a.png", "b.png"],
    ["a", "á"],
    ["1.png", "01.png"],
    ["a/b", "ab"],
    ["a.png", "a.png "],
    ["o", "0"],
  ];
  for (const [a, b] of different) {
    test(`${JSON.stringify(a)} and ${JSON.stringify(b)} fold to different paths`, () => {
      expect(foldPath(a)).not.toBe(foldPath(b));
    });
  }

  test("a character folds to the same path in all its cases and Unicode forms", () => {
    const apart: string[] = [];
    for (let code = 0x20; code <= 0x1ffff; code++) {
      if (code >= 0xd800 && code <= 0xdfff) continue;
      const one = String.fromCodePoint(code);
      const nfd = one.normalize("NFD");
      for (const other of [one.toUpperCase(), one.toLowerCase(), nfd, nfd.toUpperCase()]) {
        if (foldPath(one) !== foldPath(other)) apart.push(`${one} ${other}`);
      }
    }
    expect(apart).toEqual([]);
  });
});
