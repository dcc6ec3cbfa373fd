// A camera that writes H.264 into a pipe of `frames send - --raw h264 --spool DIR`. What is stored
// must be decoded without a warning, whatever was dropped.

import { appendFileSync, existsSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";

import { peerMissing } from "../helper/program.ts";
import { PipedFrames } from "./piped.ts";
import type { ChaosFrame, FrameRow, LossRow } from "./scenario.ts";
import type { Sender } from "./sender.ts";

/** A group of 10 grey pictures of 16x16 pixels, as x264 encodes them. */
const keyFrame =
  "000000016742c00ada7b0110000003001000000303c0f1226a0000000168ce0fc800000165888" + "43a26280e";
const others = ["9a2026", "9a4026", "9a6026", "9a802a", "9aa02a", "9ac02a", "9ae02a", "9b002a"];
/** Its pictures, the first of which is a key frame. */
export const group = [keyFrame, ...[...others, "9b202a"].map((slice) => `0000000141${slice}94`)];

const fillerHead = Buffer.from([0, 0, 0, 1, 12]);
const fillerEnd = Buffer.from([0x80]);

/** Column of the journal for pictures of encoded video. */
type PictureRow = FrameRow & { readonly id: bigint; readonly is_key: bigint | null };

export class PipedVideo extends PipedFrames {
  override readonly stream = "video";
  protected override readonly keepsOrder = true;
  /** Holds about one group, and some groups not, so that even short breaks drop pictures. */
  protected override readonly spoolSize = "40K";
  protected override get reading(): readonly string[] {
    return ["--raw", "h264", "--policy", "latest:20"];
  }
  /** Pictures that were reported as lost. */
  lost = 0;
  /** Pictures encoded so far. */
  #shot = 0;
  /** Path of each stored picture, and whether it is a key frame, by its name. */
  readonly #stored = new Map<string, { readonly path: string; readonly isKey: boolean }>();

  /** Each new process reads the rest of a group first, which it must leave out. */
  override async attend(sender: Sender): Promise<void> {
    while (this.#shot % group.length !== 0) await sender.write(this.encode(Buffer.of(1)));
    await super.attend(sender);
  }

  /** Returns the next picture. Its content is in filler data, which decoders skip. */
  protected override encode(content: Uint8Array): Uint8Array {
    const picture = Buffer.from(group[this.#shot++ % group.length]!, "hex");
    // Base64 cannot contain a start code.
    const filler = Buffer.from(Buffer.from(content).toString("base64"));
    return Buffer.concat([picture, fillerHead, filler, fillerEnd]);
  }

  /** Checks at its first sight that a picture follows the one before it, or is a key frame. */
  override frameAt(key: string, path: string): ChaosFrame | undefined {
    const frame = super.frameAt(key, path);
    if (frame === undefined || this.#stored.has(frame.name)) return frame;
    const isKey = readFileSync(path).includes(Buffer.from(keyFrame, "hex"));
    const before = path.replace(/\d+(?=\.h264$)/, (number) =>
      `${Number(number) - 1}`.padStart(number.length, "0"),
    );
    if (!isKey && !existsSync(before)) {
      throw new Error(`${path} cannot be decoded: the picture before it is missing`);
    }
    this.#stored.set(frame.name, { path, isKey });
    return frame;
  }

  /** Whatever is stored begins with a key frame, also after each gap, and is decoded by ffmpeg. */
  override faults(rows: readonly PictureRow[], losses: readonly LossRow[]): string[] {
    const wrong = super.faults(rows, losses);
    this.lost = losses.reduce((sum, { first, last }) => sum + Number(last - first) + 1, 0);
    const file = join(this.place, "video.h264");
    rmSync(file, { force: true });
    let previous: PictureRow | undefined;
    for (const row of rows.toSorted((a, b) => Number(a.id - b.id))) {
      const { path, isKey } = this.#stored.get(row.name)!;
      const step = row.session === previous?.session ? row.seq - previous.seq : undefined;
      if (row.is_key !== (isKey ? 1n : 0n)) wrong.push(`${row.name} has is_key ${row.is_key}`);
      if (step !== undefined && step < 1n) wrong.push(`${row.name} came after a later picture`);
      if (!isKey && step !== 1n) wrong.push(`${row.name} follows a gap`);
      appendFileSync(file, readFileSync(path));
      previous = row;
    }
    if (!peerMissing("ffmpeg")) wrong.push(...warningsOf(file, rows.length));
    return wrong;
  }
}

/** Returns what ffmpeg says about a stream that it must decode to this many pictures. */
function warningsOf(file: string, pictures: number): string[] {
  const words = ["-v", "warning", "-i", file, "-fps_mode", "passthrough", "-f", "framemd5", "-"];
  const { stdout, stderr } = Bun.spawnSync(["ffmpeg", ...words]);
  const warnings = stderr.toString();
  const decoded = stdout.toString().match(/^0,/gm)?.length ?? 0;
  const wrong = warnings === "" ? [] : [`ffmpeg says: ${warnings.slice(0, 500)}`];
  if (decoded !== pictures) wrong.push(`ffmpeg decodes ${decoded} of ${pictures} pictures`);
  return wrong;
}
