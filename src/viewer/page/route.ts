/** What the address says is shown: nothing for the live view, or a stream, a source of it and a moment. */
/// <reference lib="dom" />
import { nanoseconds } from "./format.ts";

export interface Place {
  readonly stream: string;
  /** The source that is stepped through. */
  readonly source?: string | undefined;
  /** Nanoseconds since 1970. */
  readonly at?: bigint | undefined;
}

/** `#/run7?source=visible&at=1764090846123456789`. */
export function hashOf({ stream, source, at }: Place): string {
  const query = new URLSearchParams();
  if (source !== undefined) query.set("source", source);
  if (at !== undefined) query.set("at", `${at}`);
  const text = query.toString();
  return `#/${encodeURIComponent(stream)}${text === "" ? "" : `?${text}`}`;
}

/** The place that a hash names; undefined for the live view. */
export function placeOf(hash: string): Place | undefined {
  const [, stream, query] = /^#\/([^?]+)(?:\?(.*))?$/.exec(hash) ?? [];
  if (stream === undefined) return undefined;
  const said = new URLSearchParams(query ?? "");
  try {
    return {
      stream: decodeURIComponent(stream),
      source: said.get("source") ?? undefined,
      at: nanoseconds(said.get("at")),
    };
  } catch {
    // Half an escape, as from a cut address.
    return undefined;
  }
}
