// Covers: auth/key-text.ts

import { describe, expect, test } from "bun:test";
import { allowsStream, formatKey, Key, parseKeys } from "../../src/auth/key.ts";
import { generateKey } from "../../src/keys/key-file.ts";
import { refusal } from "../helper/refusal.ts";

/** Bytes 0 to 31, as in the vectors of SPEC section 10. */
const known = new Key(Uint8Array.from({ length: 32 }, (_, index) => index));
const knownText = "frames_key_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh-RJn6K";

describe("Key", () => {
  test("a key has a text form made from its bytes, and an id that does not reveal it", () => {
    expect(known.text).toBe(knownText);
    const sum = new Bun.CryptoHasher("sha256").update("FRAMES/1 key id").update(known.bytes);
    expect(known.id).toBe(sum.digest("hex").slice(0, 16));
    expect(Key.parse(knownText, "here").equals(known)).toBe(true);
  });

  test("each generated key is different", () => {
    const keys = Array.from({ length: 100 }, () => generateKey());
    expect(new Set(keys.map(({ text }) => text)).size).toBe(100);
    expect(keys.every((key) => key.bytes.length === 32)).toBe(true);
    expect(keys[0]!.equals(keys[1]!)).toBe(false);
  });

  test("a key does not appear in printed or inspected output", () => {
    const secret = known.text.slice(15, 40);
    const shown = [String(known), JSON.stringify({ known }), Bun.inspect(known), `${known.id}`];
    for (const text of shown) expect(text).not.toContain(secret);
    for (const text of shown) expect(text).not.toContain("0, 1, 2, 3");
  });

  const wrong = [
    "",
    "frames_key_",
    "hunter2",
    knownText.slice(0, -1),
    `${knownText}A`,
    knownText.replace("AAEC", "AAED"),
    knownText.slice("frames_key_".length),
    knownText.replace("-", "+"),
    knownText.toLowerCase(),
  ];
  for (const text of wrong) {
    test(`a key is not read from ${JSON.stringify(text)}, and the error does not show the text`, () => {
      const { code, message } = refusal(() => Key.parse(text, "in a test"));
      expect(code).toBe("usage");
      expect(message).toContain("in a test");
      if (text.length > 12) expect(message).not.toContain(text.slice(11, 30));
    });
  }
});

describe("key files", () => {
  test("a key file has a name, a key, a role and a pattern in each line, with comments", () => {
    const other = generateKey();
    const text = `# keys\n\ncam-3 ${knownText}  # until May\n\tsite@a ${other.text} receive night-*\r\n`;
    const [first, second, ...rest] = parseKeys(text, "f");
    expect(rest).toEqual([]);
    expect({ ...first, key: first!.key.id }).toEqual({
      ...{ name: "cam-3", key: known.id, role: "both", streams: "*" },
    });
    expect({ ...second, key: second!.key.id }).toEqual({
      ...{ name: "site@a", key: other.id, role: "receive", streams: "night-*" },
    });
    expect(parseKeys(formatKey(second!), "f")[0]).toEqual(second!);
    expect(parseKeys("", "f")).toEqual([]);
  });

  const wrong: [string, string][] = [
    [`cam ${knownText} both * more`, "follows"],
    [`cam ${knownText} write`, "role"],
    [`-cam ${knownText}`, "name"],
    [`a ${knownText}\na ${knownText}`, "line 2"],
    [`cam frames_key_short`, "line 1"],
    [`cam`, "line 1"],
  ];
  for (const [text, said] of wrong) {
    test(`a key file with ${JSON.stringify(text.replaceAll(knownText, "KEY"))} is rejected`, () => {
      const { code, message } = refusal(() => parseKeys(text, "/etc/keys"));
      expect(code).toBe("usage");
      expect(message).toContain("/etc/keys");
      expect(message).toContain(said);
      expect(message).not.toContain(knownText.slice(11));
    });
  }

  test("the pattern of a key decides which streams the key allows", () => {
    const [entry] = parseKeys(`cam ${knownText} send site-a-*`, "f");
    const allowed = ["site-a-1", "site-a-", "site-b-1", "xsite-a-1", "site-a-1/x"];
    expect(allowed.map((stream) => allowsStream(entry!, stream))).toEqual([
      ...[true, true, false, false, false],
    ]);
  });
});
