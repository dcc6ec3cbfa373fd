// A camera that writes images into a pipe of `frames send - --spool DIR`. Its frames are recognized
// by their bytes, because the sender chooses their names and numbers.

import { Database } from "bun:sqlite";
import { copyFileSync, existsSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { crc32 } from "node:zlib";

import type { Random } from "../wire/fuzz.ts";
import { type ChaosFrame, type FrameRow, type LossRow, Scenario } from "./scenario.ts";
import type { Sender } from "./sender.ts";

const source = "camera";

/** A sender's process, and the index of the first frame that was written to it. */
interface Process {
  readonly first: number;
  isKilled: boolean;
  /** Whether it ended with an error, and so before it had read its input. */
  hasFailed: boolean;
}

/** Exit statuses of senders that have read all of their input. */
const wholeInput = [0, 20, 23];

/** A frame by the number that a sender gave it. */
interface NumberedFrame {
  readonly session: string;
  readonly number: number;
}

export class PipedFrames extends Scenario {
  readonly stream: string = "piped";
  override readonly hasInput = true;
  /** Limit of the frames in the spool, which a long break exceeds. */
  protected readonly spoolSize: string = "1M";
  /** Options that say how frames are read and queued, for the next process. */
  protected get reading(): readonly string[] {
    return ["--policy", this.random.pick(["block", "latest:20"])];
  }
  /** Whether frames are sent in their order, also after a break. */
  protected readonly keepsOrder: boolean = false;
  /** How often a sender could not use its spool. */
  spoolErrors = 0;
  protected readonly place: string;
  readonly #disk: string;
  #toMake = 0;
  /** Index of each frame in the order of capture, by its checksum. */
  readonly #indexes = new Map<number, number>();
  readonly #processes: Process[] = [];
  /** Frames that were in the spool when a sender ended. */
  readonly #spooled: NumberedFrame[] = [];

  /**
   * @param place folder on a disk that is never full
   * @param disk folder for the spool
   */
  constructor(place: string, disk: string, random: Random) {
    super(random);
    this.place = place;
    this.#disk = disk;
  }

  get #spool(): string {
    return join(this.#disk, `${this.stream}-spool`);
  }

  args(): string[] {
    this.#processes.push({ first: this.#indexes.size, isKilled: false, hasFailed: false });
    const names = ["--stream", this.stream, "--source", source];
    const spool = ["--spool", this.#spool, "--spool-size", this.spoolSize];
    return ["-", ...names, ...spool, ...this.reading];
  }

  add(count: number): void {
    this.#toMake += count;
  }

  override async attend(sender: Sender): Promise<void> {
    do {
      this.#toMake--;
      await sender.write(this.#capture());
      await Bun.sleep(this.random.below(30));
    } while (sender.isRunning && this.#toMake > 0);
    await sender.endInput();
  }

  /** Returns a frame whose checksum no earlier one has. */
  #capture(): Uint8Array {
    for (;;) {
      const frame = this.encode(this.makeContent(16 + this.pickSize()));
      const checksum = crc32(frame);
      // Of 14,000 random pictures, two have the same checksum in one of 45 runs.
      if (this.#indexes.has(checksum)) continue;
      this.#indexes.set(checksum, this.#indexes.size);
      return frame;
    }
  }

  /** Returns a grey picture of one line. */
  protected encode(pixels: Uint8Array): Uint8Array {
    return Buffer.concat([Buffer.from(`P5 ${pixels.length} 1 255\n`), pixels]);
  }

  override onLine(line: string): void {
    if (/^The spool .* cannot be /.test(line)) this.spoolErrors++;
  }

  override onEnded(code: number | undefined): void {
    const process = this.#processes.at(-1)!;
    process.isKilled = code === undefined;
    process.hasFailed = code !== undefined && !wholeInput.includes(code);
    this.#spooled.push(...this.#readSpool());
  }

  /** Returns the frames in the spool. No sender may run. */
  #readSpool(): NumberedFrame[] {
    const copy = join(this.place, "spool.sqlite");
    for (const end of ["", "-wal"]) {
      rmSync(copy + end, { force: true });
      const file = join(this.#spool, `spool.sqlite${end}`);
      if (existsSync(file)) copyFileSync(file, copy + end);
    }
    if (!existsSync(copy)) return [];
    const database = new Database(copy);
    try {
      return database
        .query<NumberedFrame, []>("SELECT id AS session, seq AS number FROM session, frames")
        .all();
    } catch (error) {
      // The sender was killed before it made the tables.
      if (!String(error).includes("no such table")) throw error;
      return [];
    } finally {
      database.close();
    }
  }

  override frameAt(key: string, path: string): ChaosFrame | undefined {
    const known = this.frames.get(key);
    if (known !== undefined) return known;
    const bytes = readFileSync(path);
    const checksum = crc32(bytes);
    if (!this.#indexes.has(checksum)) return undefined;
    const frame = { source, name: key.slice(source.length + 1), size: bytes.length };
    this.frames.set(key, { ...frame, crc32: checksum });
    return this.frames.get(key);
  }

  /** A server that was killed keeps files without rows, whose frames the sender may drop. */
  override mayBeUnknown(key: string, losses: readonly LossRow[]): boolean {
    const number = Number(/(\d+)\.\w+$/.exec(key)![1]);
    return losses.some(({ first, last }) => first <= number && number <= last);
  }

  override maySend(): boolean {
    return true;
  }

  /** A frame may be in the spool until its row is deleted there. */
  override mayRepeat(): boolean {
    return true;
  }

  /** Frames that were dropped because spool and queue were full are checked at the end. */
  override mayFail(line: string): boolean {
    return /"error":5[012]\b|spool cannot be|file cannot be|queue was full|sender was stopped|: \d+ (?:dropped|stopped|unreadable)\b/.test(
      line,
    );
  }

  override isComplete(code: number): boolean {
    return (code === 0 || code === 23) && this.#readSpool().length === 0;
  }

  /**
   * Every captured frame is stored or counted as lost, unless a killed sender had it in memory, or one
   * that failed never read it.
   */
  override faults(rows: readonly FrameRow[], losses: readonly LossRow[]): string[] {
    const wrong: string[] = [];
    const lossOf = ({ session, number }: NumberedFrame): LossRow | undefined => {
      return losses.find((loss) => {
        return loss.session === session && loss.first <= number && number <= loss.last;
      });
    };
    const isLost = (frame: NumberedFrame): boolean => lossOf(frame) !== undefined;
    // The next process cannot know which frames the server has without a receipt. Nor can one that
    // ends without a connection, while the disk of its spool is full.
    const wasSpooled = new Set(this.#spooled.map(({ session, number }) => `${session}/${number}`));
    const stored = new Map<number, NumberedFrame>();
    const numbers = new Set<string>();
    let lostCount = losses.reduce(
      (sum, { first, last }) => sum + Number(last) - Number(first) + 1,
      0,
    );
    for (const { session, seq, crc32: checksum, name } of rows) {
      const index = this.#indexes.get(Number(checksum));
      const number = Number(seq);
      const id = `${session}/${number}`;
      if (index === undefined) wrong.push(`${name} was not captured`);
      else if (stored.has(index)) wrong.push(`${name} is stored twice`);
      else stored.set(index, { session, number });
      if (numbers.has(id)) wrong.push(`${name} has the number of another frame`);
      const loss = lossOf({ session, number });
      if (loss !== undefined) {
        lostCount--;
        if (!wasSpooled.has(id) && loss.reason !== "stopped")
          wrong.push(`${name} is stored, and counts as lost`);
      }
      numbers.add(id);
    }
    // Frames of senders of which nothing is stored, so that their numbers are not known.
    let unnumbered = 0;
    for (const [index, { first, isKilled, hasFailed }] of this.#processes.entries()) {
      const end = this.#processes[index + 1]?.first ?? this.#indexes.size;
      const captured = Array.from({ length: end - first }, (_, position) => first + position);
      const firstStored = captured.find((one) => stored.has(one));
      if (firstStored === undefined) {
        if (!isKilled && !hasFailed) unnumbered += captured.length;
        continue;
      }
      const lastStored = captured.findLast((one) => stored.has(one))!;
      const { session, number } = stored.get(firstStored)!;
      for (const one of captured) {
        const expected = number + one - firstStored;
        const found = stored.get(one);
        if (found !== undefined && found.number !== expected) {
          wrong.push(`frame ${one} has the number ${found.number} instead of ${expected}`);
        }
        if (found !== undefined) continue;
        const wasInMemory = isKilled && (!this.keepsOrder || one > lastStored);
        // The newest frames may be in its pipe, where it never saw them.
        const wasUnread = hasFailed && one > lastStored;
        if (isLost({ session, number: expected })) lostCount--;
        else if (!wasInMemory && !wasUnread) {
          wrong.push(`frame ${one} with the number ${expected} was lost in silence`);
        }
      }
    }
    if (unnumbered > lostCount) {
      wrong.push(
        `${unnumbered} frames of senders are missing, and ${lostCount} more count as lost`,
      );
    }
    for (const frame of this.#spooled) {
      if (numbers.has(`${frame.session}/${frame.number}`) || isLost(frame)) continue;
      wrong.push(`the frame with the number ${frame.number} was lost although it was spooled`);
    }
    return wrong;
  }
}
