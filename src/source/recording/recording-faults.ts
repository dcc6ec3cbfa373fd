/** Counts the parts of a recording that are left out, by their reason. */
import type { SkippedPath } from "../source-event.ts";

/** Reasons that are told apart. Bounds the memory for a file in which everything is wrong. */
const maxReasons = 1000;

interface Fault {
  readonly path: string;
  readonly why: string;
  /** Byte at which the first one is. */
  readonly position: number;
  count: number;
}

export class RecordingFaults {
  readonly #byReason = new Map<string, Fault>();
  #others = 0;

  /** @param position byte of the file */
  add(path: string, why: string, position: number): void {
    const key = `${path}\n${why}`;
    const known = this.#byReason.get(key);
    if (known !== undefined) known.count++;
    else if (this.#byReason.size === maxReasons) this.#others++;
    else this.#byReason.set(key, { path, why, position, count: 1 });
  }

  /** One line for each reason. */
  lines(): SkippedPath[] {
    const lines = [...this.#byReason.values()].map(({ path, why, position, count }) => {
      const more = count === 1 ? "" : ` and ${count - 1} more places`;
      return { path, why: `left out at byte ${position}${more}: ${why}` };
    });
    if (this.#others > 0) lines.push({ path: "", why: `${this.#others} more parts were left out` });
    return lines;
  }
}
