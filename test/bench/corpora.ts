/** Frames for the benchmarks: 400 MB in frames of equal size. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** Frames of equal size. */
export interface Corpus {
  readonly name: string;
  readonly frames: number;
  readonly bytes: number;
}

/** The rows of the table. */
export const corpora: readonly Corpus[] = [
  { name: "20,000 x 20 KB", frames: 20_000, bytes: 20_000 },
  { name: "2,000 x 200 KB", frames: 2_000, bytes: 200_000 },
  { name: "200 x 2 MB", frames: 200, bytes: 2_000_000 },
];

/** Writes a corpus below `folder` and returns its path, which ends in `suffix`. All frames differ. */
export function makeCorpus(folder: string, { frames, bytes }: Corpus, suffix = ""): string {
  const path = join(folder, `${frames}x${bytes}${suffix}`);
  mkdirSync(path, { recursive: true });
  const frame = new Uint8Array(bytes);
  for (let at = 0; at < bytes; at += 65_536) {
    crypto.getRandomValues(frame.subarray(at, Math.min(bytes, at + 65_536)));
  }
  const number = new DataView(frame.buffer);
  for (let index = 0; index < frames; index++) {
    number.setUint32(0, index);
    writeFileSync(join(path, `${String(index + 1).padStart(6, "0")}.raw`), frame);
  }
  return path;
}
