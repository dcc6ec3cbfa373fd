/**
 * Access tokens for programs that use neither a key nor a cookie (OpenCV, VLC, Prometheus, Foxglove).
 * A token reads one source, or the live sources of Foxglove, and is part of a URL.
 * It expires, can be revoked, and ends with its key or with the server.
 */
import type { Grant } from "./secrets.ts";

/** Prefix of every token, so that people and secret scanners recognize it. */
export const tokenPrefix = "frames_token_";

/**
 * A token and its scope: one source of one stream. Without a source the token is for Foxglove, and
 * reads the whole stream; without a stream, all that its key may read.
 */
export interface AccessToken extends Grant {
  readonly id: string;
  readonly stream: string | undefined;
  readonly source: string | undefined;
}

/** Last part of the addresses of a source's newest frames. */
const newestPaths: ReadonlySet<string | undefined> = new Set([
  "latest",
  "latest.jpg",
  "latest.mjpeg",
  "latest.h264",
  "latest.h265",
]);

/** Path of Foxglove's WebSocket. A page of another site may open it with a token. */
export const foxglovePath = "/foxglove";

/**
 * Returns whether the token may read `path`: the newest frames of its source, or
 * `/metrics`; without a source, `/foxglove`.
 */
export function isAllowedByToken(path: string, { stream, source }: AccessToken): boolean {
  if (stream === undefined || source === undefined) return path === foxglovePath;
  if (path === "/metrics") return true;
  const expected = ["", "streams", stream, "sources", ...source.split("/")];
  const parts = path.split("/").map(decodePart);
  const last = parts.pop();
  return (
    newestPaths.has(last) &&
    parts.length === expected.length &&
    parts.every((part, index) => part === expected[index])
  );
}

/** Decodes a path part. Returns undefined if it is not valid percent-encoded UTF-8. */
function decodePart(part: string): string | undefined {
  try {
    return decodeURIComponent(part);
  } catch {
    return undefined;
  }
}
