/** Media type, file name and URL path of a frame. */
import type { RawShape } from "../frame.ts";

/**
 * Media types by extension. Only image types that browsers do not run as code; others are sent as
 * bytes.
 */
const mediaTypes = new Map<string, string>([
  ["jpg", "image/jpeg"],
  ["jpeg", "image/jpeg"],
  ["png", "image/png"],
  ["bmp", "image/bmp"],
  ["gif", "image/gif"],
  ["webp", "image/webp"],
  ["avif", "image/avif"],
  ["tif", "image/tiff"],
  ["tiff", "image/tiff"],
  ["pgm", "image/x-portable-graymap"],
  ["ppm", "image/x-portable-pixmap"],
  ["pbm", "image/x-portable-bitmap"],
  ["pnm", "image/x-portable-anymap"],
  ["pam", "image/x-portable-arbitrarymap"],
]);

export const binaryType = "application/octet-stream";

/** Returns the media type by extension. Raw frames and unknown extensions are `binaryType`. */
export function mediaType(name: string, raw: RawShape | undefined): string {
  if (raw !== undefined) return binaryType;
  const extension = name.slice(name.lastIndexOf(".") + 1).toLowerCase();
  return mediaTypes.get(extension) ?? binaryType;
}

/** Returns the Content-Disposition value. Browsers show images and save everything else. */
export function contentDisposition(name: string, type: string): string {
  const kind = type === binaryType ? "attachment" : "inline";
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

/** Returns the URL path of a stored frame, percent-encoding each part. */
export function frameUrlPath(stream: string, source: string, name: string): string {
  const parts = source.split("/").map(encodeURIComponent).join("/");
  return `/streams/${encodeURIComponent(stream)}/sources/${parts}/frames/${encodeURIComponent(name)}`;
}
