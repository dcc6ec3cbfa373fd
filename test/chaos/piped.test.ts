// Which missing frames of a pipe a chaos run accepts.

import { expect, test } from "bun:test";
import { crc32 } from "node:zlib";
import { temporaryFolder } from "../helper/program.ts";
import { Random } from "../wire/fuzz.ts";
import { PipedFrames } from "./piped.ts";
import type { FrameRow } from "./scenario.ts";
import type { Sender } from "./sender.ts";

const session = "a".repeat(32);

/** Writes frames as long as a sender runs. Returns the checksums of all. */
async function captured(piped: PipedFrames, count: number): Promise<number[]> {
  const checksums: number[] = [];
  const sender = {
    isRunning: true,
    write: async (bytes: Uint8Array) => void checksums.push(crc32(bytes)),
    endInput: async () => {},
  };
  piped.args();
  piped.add(count);
  await piped.attend(sender as unknown as Sender);
  return checksums;
}

function row(number: number, checksum: number): FrameRow {
  const seq = BigInt(number);
  const numbers = { seq, bytes: 1n, crc32: BigInt(checksum), captured: 1n };
  return { source: "camera", name: `${number}.pgm`, session, ...numbers };
}

for (const [what, code, stored, isWrong] of [
  ["a sender that has ended well", 0, [0, 1], true],
  ["a sender that was killed", undefined, [0, 1], false],
  ["a sender that has failed before it read them", 10, [0, 1], false],
  ["a sender that has failed, and sent later ones", 10, [0, 3], true],
] as const) {
  test(`frames missing of ${what} are ${isWrong ? "a fault" : "accepted"}`, async () => {
    const piped = new PipedFrames(temporaryFolder(), temporaryFolder(), new Random(1));
    const first = await captured(piped, 4);
    piped.onEnded(code);
    const [next] = await captured(piped, 1);
    piped.onEnded(0);
    const rows = stored.map((index) => row(index + 1, first[index]!));
    const faults = piped.faults([...rows, row(stored.at(-1)! + 2, next!)], []);
    expect([faults.length > 0, ...faults]).toEqual([isWrong, ...faults]);
  });
}
