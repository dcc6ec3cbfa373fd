/** Media type, file name and URL path of a frame. */
import { binaryType, mediaTypeOf } from "../common/media-types.ts";
import type { RawShape } from "../frame.ts";

/**
 * Returns the media type by extension. Only images and encoded video have one, because browsers may
 * run other types as code: raw frames and the rest are `binaryType`.
 */
export function mediaType(name: string, raw: RawShape | undefined): string {
  const type = raw === undefined ? mediaTypeOf(name) : binaryType;
  return /^(?:image|video)\//.test(type) ? type : binaryType;
}

/** Returns the Content-Disposition value. Browsers show images and save everything else. */
export function contentDisposition(name: string, type: string): string {
  const kind = type.startsWith("image/") ? "inline" : "attachment";
  // RFC 8187 requires encoding these characters too, which encodeURIComponent leaves as they are.
  const encoded = encodeURIComponent(name).replace(
    /['()*!]/g,
    (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`,
  );
  return `${kind}; filename*=UTF-8''${encoded}`;
}

/** Formats nanoseconds since 1970 as seconds with nine decimals. */
export function toDecimalSeconds(nanoseconds: bigint): string {
  const sign = nanoseconds < 0n ? "-" : "";
  const digits = String(nanoseconds < 0n ? -nanoseconds : nanoseconds).padStart(10, "0");
  return `${sign}${digits.slice(0, -9)}.${digits.slice(-9)}`;
}

/** Returns the URL path of a source, percent-encoding each part. */
export function sourceUrlPath(stream: string, source: string): string {
  const parts = source.split("/").map(encodeURIComponent).join("/");
  return `/streams/${encodeURIComponent(stream)}/sources/${parts}`;
}

/** Returns the URL path of a stored frame. */
export function frameUrlPath(stream: string, source: string, name: string): string {
  return `${sourceUrlPath(stream, source)}/frames/${encodeURIComponent(name)}`;
}
