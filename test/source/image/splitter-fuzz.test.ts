import { expect, test } from "bun:test";
import { cut, longestArrayOf, Random, seedOf } from "../../wire/fuzz.ts";
import { images, linesOf, type Split, split } from "./images.ts";

const inputs = Number(process.env["FRAMES_FUZZ_INPUTS"] ?? 20_000);
const seed = Number(process.env["FRAMES_FUZZ_SEED"] ?? 20261122);

console.log(`fuzz: FRAMES_FUZZ_SEED=${seed} FRAMES_FUZZ_INPUTS=${inputs}`);

/** Timeout for runs longer than the default. */
const patience = 600_000;

/** Bytes with a special meaning in some format. */
const telling = [
  0x00, 0xff, 0xd8, 0xd9, 0xda, 0x0a, 0x20, 0x23, 0x30, 0x50, 0x42, 0x89, 0x7f, 0x01,
];

/** Concatenates and mutates a few images. */
function make(random: Random): Uint8Array {
  const parts: Uint8Array[] = [];
  do {
    const bytes = new Uint8Array(random.pick(images)[2]);
    if (random.below(3) === 0) mutate(bytes, random);
    const end = random.below(12) === 0 ? random.below(bytes.length) : bytes.length;
    parts.push(bytes.subarray(0, end));
    if (random.below(5) === 0) parts.push(new Uint8Array(random.below(20)));
    if (random.below(30) === 0) parts.push(random.bytes(random.below(20)));
  } while (random.below(4) > 0);
  const bytes = Buffer.concat(parts);
  return random.below(6) === 0 ? bytes.subarray(0, random.below(bytes.length + 1)) : bytes;
}

function mutate(bytes: Uint8Array, random: Random): void {
  for (let time = random.below(4); time >= 0; time--) {
    const at = random.below(bytes.length);
    const way = random.below(4);
    if (way === 0) bytes[at] = random.below(256);
    else if (way === 1) bytes[at] = random.pick(telling);
    else if (way === 2) bytes[at]! ^= 1 << random.below(8);
    // The copied bytes may contain a length, a marker or the start of another image.
    else bytes.copyWithin(at, random.below(bytes.length), random.below(bytes.length + 1));
  }
}

/** Returns what is wrong with the result of a splitter, if anything. */
function wrongWith(input: Uint8Array, largest: number, found: Split): string | undefined {
  let at = 0;
  for (const { bytes, extension } of found.frames) {
    if (bytes.length === 0) return `${extension} is empty`;
    if (bytes.length > largest) return `${extension} has ${bytes.length} bytes`;
    // Only zeros, fill bytes of JPEG, and whitespace after text images, may be skipped.
    while (at < input.length && bytes[0] !== input[at]) {
      if (!padding.includes(input[at]!)) return `byte ${at} was passed over`;
      at++;
    }
    while (extension === "jpg" && input[at + 1] === 0xff) at++;
    const slice = input.subarray(at, at + bytes.length);
    if (!Buffer.from(bytes).equals(slice)) return `${extension} is not what came at byte ${at}`;
    at += bytes.length;
  }
  for (const { bytes, extension } of found.later) {
    if (bytes.length > largest) return `${extension} has ${bytes.length} bytes`;
    const start = Buffer.from(input).indexOf(bytes, at);
    if (start < 0) return `${extension} is not in the input behind byte ${at}`;
    at = start + bytes.length;
  }
  for (const { code, message } of found.errors) {
    if (!["unreadable", "too-large"].includes(code)) return `an error is ${code}`;
    if (!/^[\x20-\x7e…]+$/.test(message)) return "an error has strange characters";
  }
  if (found.errors.length > 0) return undefined;
  if (found.frames.length === 0) return "it gave nothing";
  for (; at < input.length; at++) {
    if (!padding.includes(input[at]!)) return `byte ${at} was left over`;
  }
  return undefined;
}

const padding = [0, 9, 10, 11, 12, 13, 32, 0xff];

/** Returns a splitter's result as text, without the quoted input, which depends on the chunks. */
function told({ frames, errors, later }: Split): string {
  const messages = errors.map(({ code, message }) => [code, message.replace(/received .*/, "")]);
  return [...linesOf(frames), ...messages, ...linesOf(later)].join("\n");
}

test(
  `the splitter withstands ${inputs} mutated inputs, and gives the same frames however each is cut`,
  () => {
    let [clean, frames] = [0, 0];
    for (let index = 0; index < inputs; index++) {
      const random = new Random(seedOf(seed, index));
      const input = make(random);
      const largest = random.pick([20, 60, 200, 1 << 20]);
      const raw = { width: 1 + random.below(4), height: 1 + random.below(4), format: "gray" };
      const options = { maxFrameBytes: largest, ...(random.below(20) === 0 ? { raw } : {}) };
      const whole = split([input], options);
      let wrong = wrongWith(input, largest, whole);
      const { longest, value } = longestArrayOf(() => split(cut(input, random), options));
      if (longest > Math.max(largest, input.length, 64)) wrong ??= `it held ${longest} bytes`;
      if (told(value) !== told(whole)) wrong ??= `${told(whole)}\nbut cut:\n${told(value)}`;
      if (wrong !== undefined) {
        const hex = Buffer.from(input).toString("hex");
        throw new Error(
          `FRAMES_FUZZ_SEED=${seed}, input ${index}, largest ${largest}: ${wrong}\n${hex}`,
        );
      }
      if (whole.error === undefined) clean++;
      frames += whole.frames.length;
    }
    // If all inputs failed at once, the test would be worthless.
    expect(frames).toBeGreaterThan(inputs);
    expect(clean).toBeGreaterThan(inputs / 20);
    expect(clean).toBeLessThan(inputs * 0.95);
  },
  patience,
);

test(`the splitter withstands ${inputs >> 2} inputs of random bytes`, () => {
  for (let index = 0; index < inputs >> 2; index++) {
    const random = new Random(seedOf(seed ^ 1, index));
    const begin = random.pick(images)[2];
    const input = Buffer.concat([
      begin.subarray(0, random.below(begin.length)),
      random.bytes(random.below(300)),
    ]);
    const whole = split([input]);
    expect(wrongWith(input, 1 << 20, whole)).toBeUndefined();
    expect(told(split(cut(input, random)))).toBe(told(whole));
  }
});
