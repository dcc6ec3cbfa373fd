/** What a frame is to those who get it: its media type, and under which name it is kept. */
import type { RawShape } from "../frame.ts";

/** By ending: pictures, which no browser runs. Whatever else there is goes out as bytes. */
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

/** The media type of a frame, by its ending. */
export function mediaType(name: string, raw: RawShape | undefined): string {
  if (raw !== undefined) return binaryType;
  const extension = name.slice(name.lastIndexOf(".") + 1).toLowerCase();
  return mediaTypes.get(extension) ?? binaryType;
}

/** How a browser is to treat a frame: what is no picture it keeps, and does not show. */
export function contentDisposition(name: string, type: string): string {
  const kind = type === binaryType ? "attachment" : "inline";
  // RFC 8187: what encodeURIComponent leaves and a header may not hold is encoded too.
  const encoded = encodeURIComponent(name).replace(
    /['()*!]/g,
    (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`,
  );
  return `${kind}; filename*=UTF-8''${encoded}`;
}

/** Nanoseconds since 1970 as seconds, with nine decimals. */
export function toDecimalSeconds(nanoseconds: bigint): string {
  const sign = nanoseconds < 0n ? "-" : "";
  const digits = String(nanoseconds < 0n ? -nanoseconds : nanoseconds).padStart(10, "0");
  return `${sign}${digits.slice(0, -9)}.${digits.slice(-9)}`;
}

/** Path of a frame's address. */
export function framePath(stream: string, source: string, name: string): string {
  const parts = source.split("/").map(encodeURIComponent).join("/");
  return `/streams/${encodeURIComponent(stream)}/sources/${parts}/frames/${encodeURIComponent(name)}`;
}
