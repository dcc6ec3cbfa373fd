/**
 * What a spool notes while SQLite cannot write: the names of empty files, because a full disk still
 * has names. A note belongs to the session whose id it begins with.
 */
import { existsSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** Consecutive numbers that were lost. */
export interface LostNumbers {
  readonly first: number;
  readonly last: number;
}

/** `SESSION-LAST.last` has the last number, and `SESSION-FIRST-LAST.lost` has lost ones. */
const lastName = /^([^-]+)-(\d{1,15})\.last$/;
const lostName = /^([^-]+)-(\d{1,15})-(\d{1,15})\.lost$/;

export class SpoolNotes {
  readonly #folder: string;
  readonly #session: string;
  /** Name of the file that has the last number. */
  #lastFile: string | undefined;
  #lastNumber = 0;
  /** Names of the files that have lost numbers, and those of the last one. */
  readonly #lostFiles = new Map<string, LostNumbers>();
  #latestLost: string | undefined;

  /** Reads the notes of earlier processes. Removes those of other sessions. */
  constructor(folder: string, session: string) {
    this.#folder = folder;
    this.#session = session;
    for (const name of existsSync(folder) ? readdirSync(folder) : []) this.#read(name);
  }

  #read(name: string): void {
    const last = lastName.exec(name);
    const lost = lostName.exec(name);
    if (last === null && lost === null) return;
    if ((last ?? lost)![1] !== this.#session) return removeFile(join(this.#folder, name));
    if (last !== null) [this.#lastFile, this.#lastNumber] = [name, Number(last[2])];
    else if (lost !== null) this.#addLost(name, Number(lost[2]), Number(lost[3]));
  }

  #addLost(name: string, first: number, last: number): void {
    if (first < 1 || last < first) return;
    this.#lostFiles.set(name, { first, last });
    this.#latestLost = name;
  }

  /** The noted last number; 0 if there is none. */
  get lastNumber(): number {
    return this.#lastNumber;
  }

  /** Lost numbers that were noted. */
  get lost(): readonly LostNumbers[] {
    return [...this.#lostFiles.values()];
  }

  noteLastNumber(sequence: number): void {
    const name = `${this.#session}-${sequence}.last`;
    if (!this.#write(name, this.#lastFile)) return;
    [this.#lastFile, this.#lastNumber] = [name, sequence];
  }

  forgetLastNumber(): void {
    if (this.#lastFile !== undefined) removeFile(join(this.#folder, this.#lastFile));
    [this.#lastFile, this.#lastNumber] = [undefined, 0];
  }

  /**
   * Notes lost numbers, in one file with those of the last note if they follow each other.
   *
   * @returns whether that was possible
   */
  noteLost({ first, last }: LostNumbers): boolean {
    const latest = this.#lostFiles.get(this.#latestLost ?? "");
    const follows = latest !== undefined && latest.first <= first && first <= latest.last + 1;
    const from = follows ? latest.first : first;
    const to = follows ? Math.max(latest.last, last) : last;
    const name = `${this.#session}-${from}-${to}.lost`;
    if (this.#lostFiles.has(name)) return true;
    const replaced = follows ? this.#latestLost! : undefined;
    if (!this.#write(name, replaced)) return false;
    if (replaced !== undefined) this.#lostFiles.delete(replaced);
    this.#addLost(name, from, to);
    return true;
  }

  forgetLost(): void {
    for (const name of this.#lostFiles.keys()) removeFile(join(this.#folder, name));
    this.#lostFiles.clear();
    this.#latestLost = undefined;
  }

  /** Gives a new name to a file, or creates it. Returns whether that was possible. */
  #write(name: string, previous: string | undefined): boolean {
    if (name === previous) return true;
    const path = join(this.#folder, name);
    try {
      if (previous === undefined) writeFileSync(path, "", { flag: "wx", mode: 0o600 });
      else renameSync(join(this.#folder, previous), path);
      return true;
    } catch {
      // The error of the disk was already reported.
      return false;
    }
  }
}

/** Removes a file if it exists. One that the disk cannot remove only wastes space. */
export function removeFile(path: string): void {
  try {
    rmSync(path, { force: true });
  } catch {
    // The error of the disk was already reported.
  }
}
