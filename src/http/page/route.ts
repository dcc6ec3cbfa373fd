/** The URL hash: empty for the wall, or the stream and the part of it that is shown large. */
/// <reference lib="dom" />
import { parseNanoseconds } from "./format.ts";

export interface ViewRoute {
  readonly stream: string;
  /** Recorded: the source selected for stepping. Live: the only source shown. */
  readonly source?: string | undefined;
  /** Nanoseconds since 1970. */
  readonly at?: bigint | undefined;
  /** Whether the live sources are shown, not the recorded frames. */
  readonly isLive?: boolean | undefined;
}

/** Formats a hash such as `#/run7?source=visible&at=1764090846123456789` or `#/run7?live`. */
export function formatHash({ stream, source, at, isLive = false }: ViewRoute): string {
  const query = new URLSearchParams();
  if (isLive) query.set("live", "");
  if (source !== undefined) query.set("source", source);
  if (at !== undefined) query.set("at", `${at}`);
  const text = query.toString().replace("live=", "live");
  return `#/${encodeURIComponent(stream)}${text === "" ? "" : `?${text}`}`;
}

/** Parses a hash. Undefined means the wall. */
export function parseHash(hash: string): ViewRoute | undefined {
  const [, stream, query] = /^#\/([^?]+)(?:\?(.*))?$/.exec(hash) ?? [];
  if (stream === undefined) return undefined;
  const params = new URLSearchParams(query ?? "");
  try {
    return {
      stream: decodeURIComponent(stream),
      source: params.get("source") ?? undefined,
      at: parseNanoseconds(params.get("at")),
      ...(params.has("live") ? { isLive: true } : {}),
    };
  } catch {
    // Malformed percent-encoding, as in a truncated URL.
    return undefined;
  }
}
