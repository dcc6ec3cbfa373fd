/** The URL hash: empty for the live view, or stream, source and time of the recorded view. */
/// <reference lib="dom" />
import { parseNanoseconds } from "./format.ts";

export interface ViewRoute {
  readonly stream: string;
  /** The source selected for stepping. */
  readonly source?: string | undefined;
  /** Nanoseconds since 1970. */
  readonly at?: bigint | undefined;
}

/** Formats a hash such as `#/run7?source=visible&at=1764090846123456789`. */
export function formatHash({ stream, source, at }: ViewRoute): string {
  const query = new URLSearchParams();
  if (source !== undefined) query.set("source", source);
  if (at !== undefined) query.set("at", `${at}`);
  const text = query.toString();
  return `#/${encodeURIComponent(stream)}${text === "" ? "" : `?${text}`}`;
}

/** Parses a hash. Undefined means the live view. */
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
    // Malformed percent-encoding, as in a truncated URL.
    return undefined;
  }
}
