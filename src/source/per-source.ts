/** Settings given once for all sources, or as `SOURCE=VALUE` for one. */
import { usageError } from "../errors.ts";

/** One value for all sources, or a list that may contain `SOURCE=VALUE` entries. */
export type PerSource = string | readonly string[];

/**
 * Action of a live source when its queue is full: pause capture, or keep this many newest frames.
 */
export type QueuePolicy = "block" | { readonly latest: number };

/**
 * Returns the value for a source. `SOURCE=VALUE` precedes a general value, and the last entry
 * precedes earlier ones.
 */
export function settingFor(values: PerSource | undefined, source: string): string | undefined {
  const list = typeof values === "string" ? [values] : (values ?? []);
  const own = list.findLast((text) => text.startsWith(`${source}=`));
  if (own !== undefined) return own.slice(source.length + 1);
  return list.findLast((text) => !text.includes("="));
}

/**
 * Checks that every `SOURCE=VALUE` names an existing source.
 *
 * @param option name of the setting, for the error message
 * @throws {FramesError} `usage`
 */
export function checkSourceNames(
  values: PerSource | undefined,
  sources: readonly string[],
  option: string,
): void {
  for (const text of typeof values === "string" ? [values] : (values ?? [])) {
    const at = text.lastIndexOf("=");
    if (at < 0 || sources.includes(text.slice(0, at))) continue;
    throw usageError(
      `Cannot read ${option}: no source is named ${text.slice(0, at)}; choose from ${sources.join(", ")}`,
    );
  }
}

/** @throws {FramesError} `usage` */
export function parsePolicy(text: string): QueuePolicy {
  if (text === "block") return "block";
  const [, count] = /^latest(?::(\d{1,6}))?$/.exec(text) ?? [];
  const latest = Number(count ?? 1);
  if (text.startsWith("latest") && (count !== undefined || text === "latest") && latest >= 1) {
    return { latest };
  }
  throw usageError(
    `Cannot read --policy: expected block, latest or latest:N, current value is ${JSON.stringify(text)}`,
  );
}

/**
 * Parses every value, including those that no source of this delivery uses, so that a typo fails
 * early.
 *
 * @param parse throws if a value is invalid
 * @throws {FramesError} `usage`
 */
export function checkValues(values: PerSource | undefined, parse: (text: string) => unknown): void {
  for (const text of typeof values === "string" ? [values] : (values ?? [])) {
    parse(text.slice(text.lastIndexOf("=") + 1));
  }
}

/** @throws {FramesError} `usage` */
export function parseQuality(text: string): number {
  const quality = /^\d{1,2}$/.test(text) ? Number(text) : NaN;
  if (quality >= 2 && quality <= 31) return quality;
  throw usageError(
    `Cannot read --quality: expected a number from 2 (best) to 31, current value is ${JSON.stringify(text)}`,
  );
}

/** @throws {FramesError} `usage` */
export function parseRate(text: string): number {
  const rate = /^\d+(?:\.\d+)?$/.test(text) ? Number(text) : NaN;
  if (rate > 0 && rate <= 100_000) return rate;
  throw usageError(
    `Cannot read --fps: expected frames a second such as 10, current value is ${JSON.stringify(text)}`,
  );
}

/** @throws {FramesError} `usage` */
export function parseConversion(text: string): "jpeg" | "png" {
  if (text === "jpeg" || text === "png") return text;
  throw usageError(
    `Cannot read --convert: expected jpeg or png, current value is ${JSON.stringify(text)}`,
  );
}
