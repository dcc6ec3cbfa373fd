// A camera that writes files into a folder of `frames send DIR --watch --move`: in one go, by
// renaming, or with long pauses, and now and then under the name of a file that was removed.

import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  statSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { crc32 } from "node:zlib";

import type { Random } from "../wire/fuzz.ts";
import { type FrameRow, keyOf, type LossRow, Scenario } from "./scenario.ts";
import type { Sender } from "./sender.ts";

const stream = "watched";

const settleMs = 100;

/** Names of removed files that are used again. Such files stay, so there are few. */
const mostReused = 20;

/** Events that Linux keeps for a process that does not read them. */
const queueLimit = "/proc/sys/fs/inotify/max_queued_events";

/** What senders say of conflicts, and of files that may be incomplete when sending stopped. */
const conflictOrStopped =
  /"error":(?:35|52)\b|other bytes are stored|complete when sending stopped|: \d+ (?:conflict|stopped)\b/;

export class WatchedTree extends Scenario {
  readonly stream = stream;
  readonly #folder: string;
  /** Frames that the camera has still to make in this round. */
  #toMake = 0;
  /** Keys of files that were not removed yet. */
  readonly #here = new Set<string>();
  /** Names of removed files. */
  readonly #gone: string[] = [];
  /**
   * Files that the camera writes under their final names. A half-written one may be sent. Its later
   * version is a conflict if the sender was restarted meanwhile, so these may stay.
   */
  readonly #inPlace = new Set<string>();
  /** Checksums of the files of each name that was used again, in order. */
  readonly #reused = new Map<string, number[]>();
  /**
   * Names of files without events. Nothing shows a sender that they are whole, so one that is stopped
   * before they have settled reports them, and the next one sends them.
   */
  readonly #unseen = new Set<string>();
  /** Copies that a sender has told of. */
  readonly #kept = new Set<string>();

  /** @param place folder for the watched folder */
  constructor(place: string, random: Random) {
    super(random);
    this.#folder = join(place, stream);
    mkdirSync(this.#folder);
  }

  args(): string[] {
    return [this.#folder, "--watch", "--move", "--settle", `${settleMs}`];
  }

  add(count: number): void {
    this.#toMake += count;
  }

  override async attend(sender: Sender): Promise<void> {
    while (sender.isRunning && this.#toMake > 0) {
      this.#toMake--;
      await this.#makeFile();
      await Bun.sleep(this.random.below(30));
    }
    const mustGo = (): boolean => [...this.#here].some((key) => !this.#inPlace.has(key));
    while (sender.isRunning && (!sender.wasWelcome || mustGo())) await Bun.sleep(20);
    const end = performance.now() + 20 * settleMs;
    while (sender.isRunning && this.#here.size > 0 && performance.now() < end) await Bun.sleep(20);
    sender.interrupt();
  }

  async #makeFile(): Promise<void> {
    const which = this.random.below(30);
    if (which === 0 && this.#reuseName()) return;
    const bytes = this.makeContent(this.pickSize());
    const name = `${this.made}.png`;
    const path = join(this.#folder, name);
    const frame = { source: stream, name, size: bytes.length, crc32: crc32(bytes) };
    const key = keyOf(frame);
    const add = (at: string): void => {
      const captured = statSync(at, { bigint: true }).mtimeNs;
      this.frames.set(key, { ...frame, captured });
    };
    this.#here.add(key);
    if (which < 15) {
      const unfinished = join(this.#folder, `.${name}`);
      writeFileSync(unfinished, bytes);
      add(unfinished);
      renameSync(unfinished, path);
    } else {
      this.#inPlace.add(key);
      this.frames.set(key, frame);
      if (which === 15) await writeSlowly(path, bytes);
      else writeFileSync(path, bytes);
      add(path);
    }
  }

  /** Writes a file whose name the server has with other bytes. Returns whether there was one. */
  #reuseName(): boolean {
    const kept = [...this.#reused].filter(([name, checksums]) => {
      return this.#kept.has(this.#keptPath(name, checksums.at(-1)!));
    });
    let name: string | undefined;
    // A file that was refused may be replaced by the next, because a copy of it was kept.
    if (kept.length > 0 && this.random.below(3) === 0) name = this.random.pick(kept)[0];
    else if (this.#reused.size < mostReused && this.#gone.length > 0) {
      name = this.random.pick(this.#gone);
      if (this.#reused.has(name)) return false;
    }
    if (name === undefined) return false;
    const bytes = this.makeContent(16 + this.pickSize());
    const unfinished = join(this.#folder, `.${name}`);
    writeFileSync(unfinished, bytes);
    this.#reused.set(name, [...(this.#reused.get(name) ?? []), crc32(bytes)]);
    renameSync(unfinished, join(this.#folder, name));
    return true;
  }

  #keptPath(name: string, checksum: number): string {
    return join(this.#folder, `.kept-${checksum.toString(16).padStart(8, "0")}-${name}`);
  }

  /**
   * Makes more events than the system keeps, and then files without events. The sender must not read
   * events meanwhile.
   *
   * @returns whether these files were removed since, when it is called
   */
  async loseEvents(): Promise<() => boolean> {
    const files = [".a", ".b"].map((name) => join(this.#folder, name));
    for (const file of files) writeFileSync(file, "");
    const count = Number(readFileSync(queueLimit, "utf8")) + 100;
    // The system joins equal events that follow each other.
    for (let index = 0; index < count; index++) utimesSync(files[index % 2]!, 1, 1);
    const before = new Set(this.#here);
    for (let made = 0; made < 3; made++) await this.#makeFile();
    const unseen = [...this.#here].filter((key) => !before.has(key));
    for (const key of unseen) this.#unseen.add(this.frames.get(key)!.name);
    return () => !unseen.some((key) => this.#here.has(key));
  }

  override onLine(line: string): void {
    const path = /^Kept a copy as (.+): another file may take its name/.exec(line)?.[1];
    if (path !== undefined) this.#kept.add(path);
  }

  /** Returns the files that a sender has removed: the server must have exactly their bytes. */
  override newlyDue(): string[] {
    const removed = [...this.#here].filter((key) => {
      return !existsSync(join(this.#folder, this.frames.get(key)!.name));
    });
    for (const key of removed) {
      this.#here.delete(key);
      this.#gone.push(this.frames.get(key)!.name);
    }
    return removed;
  }

  override isUnsettled(key: string): boolean {
    return this.#here.has(key);
  }

  /** A restarted sender sends files that are not older than ten seconds without asking. */
  override mayRepeat(): boolean {
    return true;
  }

  override mayFail(line: string): boolean {
    return this.#inPlace.size + this.#reused.size > 0 && conflictOrStopped.test(line);
  }

  override isComplete(code: number): boolean {
    return code === 0 || (code === 23 && this.#inPlace.size + this.#reused.size > 0);
  }

  override faults(_rows: readonly FrameRow[], losses: readonly LossRow[]): string[] {
    const mayConflict = (name: string): boolean => {
      return this.#reused.has(name) || this.#inPlace.has(keyOf({ source: stream, name }));
    };
    const wrong = losses
      .filter(({ name }) => name === null || !mayConflict(name))
      .filter(({ name, reason }) => reason !== "stopped" || !this.#unseen.has(name!))
      .map((loss) => `the journal has a loss: ${Bun.inspect(loss)}`);
    for (const key of this.#here) {
      const { name, crc32: checksum } = this.frames.get(key)!;
      if (!this.#inPlace.has(key)) wrong.push(`${key} was not removed`);
      if (!hasContent(join(this.#folder, name), checksum)) wrong.push(`${key} is gone`);
    }
    for (const [name, checksums] of this.#reused) {
      const latest = checksums.at(-1)!;
      for (const checksum of checksums) {
        const copy = this.#keptPath(name, checksum);
        const isKept =
          (checksum === latest && hasContent(join(this.#folder, name), checksum)) ||
          hasContent(copy, checksum);
        if (!isKept) wrong.push(`a file named ${name} again is lost: there is no ${copy}`);
      }
    }
    return wrong;
  }
}

/** Writes a file in two parts, and has it open for longer than the sender waits. */
async function writeSlowly(path: string, bytes: Uint8Array): Promise<void> {
  const file = openSync(path, "w");
  try {
    const half = bytes.length >> 1;
    writeSync(file, bytes.subarray(0, half));
    await Bun.sleep(4 * settleMs);
    writeSync(file, bytes.subarray(half));
  } finally {
    closeSync(file);
  }
}

function hasContent(path: string, checksum: number): boolean {
  return existsSync(path) && crc32(readFileSync(path)) === checksum;
}
