/** Stream names with strftime fields (POSIX) in UTC, such as `cam3-%Y-%m-%d`. */
import { usageError } from "../../errors.ts";

const formatters: Record<string, (date: Date) => string> = {
  Y: (date) => String(date.getUTCFullYear()),
  m: (date) => twoDigits(date.getUTCMonth() + 1),
  d: (date) => twoDigits(date.getUTCDate()),
  H: (date) => twoDigits(date.getUTCHours()),
  M: (date) => twoDigits(date.getUTCMinutes()),
  S: (date) => twoDigits(date.getUTCSeconds()),
  j: (date) => {
    const start = Date.UTC(date.getUTCFullYear(), 0, 1);
    return String(Math.floor((date.getTime() - start) / 86_400_000) + 1).padStart(3, "0");
  },
  "%": () => "%",
};

function twoDigits(value: number): string {
  return String(value).padStart(2, "0");
}

/** Expands the fields of a stream name for a given time. */
export class StreamNameTemplate {
  readonly #text: string;
  /** The name of the last second asked for, because many frames share a second. */
  #cached: { second: bigint; name: string } | undefined;

  /** @throws {FramesError} `usage` for an unknown field */
  constructor(text: string) {
    const unknown = [...text.matchAll(/%(.|$)/g)].find(
      ([, field]) => !Object.hasOwn(formatters, field!),
    );
    if (unknown !== undefined) {
      const known = Object.keys(formatters).map((field) => `%${field}`);
      throw usageError(
        `Cannot use ${unknown[0]} in --stream: expected one of ${known.join(" ")}; write %% for a percent sign`,
      );
    }
    this.#text = text;
  }

  /** Whether the name depends on the time, because it has fields other than `%%`. */
  get isTimeDependent(): boolean {
    return /%[^%]/.test(this.#text.replaceAll("%%", ""));
  }

  /**
   * Returns the stream name at a time.
   *
   * @param time nanoseconds since 1970
   */
  at(time: bigint): string {
    const second = time / 1_000_000_000n;
    if (this.#cached?.second !== second) {
      const date = new Date(Number(second) * 1000);
      const name = this.#text.replace(/%(.)/g, (_, field: string) => formatters[field]!(date));
      this.#cached = { second, name };
    }
    return this.#cached.name;
  }
}
