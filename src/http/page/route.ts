/** What the address says is shown: nothing for the live view, or a stream, a source of it and a moment. */
/// <reference lib="dom" />
import { parseNanoseconds } from "./format.ts";

export interface ViewRoute {
  readonly stream: string;
  /** The source that is stepped through. */
  readonly source?: string | undefined;
  /** Nanoseconds since 1970. */
  readonly at?: bigint | undefined;
}

/** `#/run7?source=visible&at=1764090846123456789`. */
export function formatHash({ stream, source, at }: ViewRoute): string {
  const query = new URLSearchParams();
  if (source !== undefined) query.set("source", source);
  if (at !== undefined) query.set("at", `${at}`);
  const text = query.toString();
  return `#/${encodeURIComponent(stream)}${text === "" ? "" : `?${text}`}`;
}

/** The place that a hash names; undefined for the live view. */
export function parseHash(hash: string): ViewRoute | undefined {
  const [, stream, query] = /^#\/([^?]+)(?:\?(.*))?$/.exec(hash) ?? [];
  if (stream === undefined) return undefined;
  const params = new URLSearchParams(query ?? "");
  try {
    return {
      stream: decodeURIComponent(stream),
      source: params.get("source") ?? undefined,
      at: parseNanoseconds(params.get("at")),
    };
  } catch {
    // Half an escape, as from a cut address.
    return undefined;
  }
}
