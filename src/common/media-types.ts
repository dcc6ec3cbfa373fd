/** Media types of frames by file name extension. */

/** The first extension of a type is the one for frames without a name. */
const typesByExtension = new Map<string, string>([
  ["jpg", "image/jpeg"],
  ["jpeg", "image/jpeg"],
  ["png", "image/png"],
  ["bmp", "image/bmp"],
  ["gif", "image/gif"],
  ["webp", "image/webp"],
  ["avif", "image/avif"],
  ["heic", "image/heic"],
  ["jp2", "image/jp2"],
  ["exr", "image/x-exr"],
  ["tif", "image/tiff"],
  ["tiff", "image/tiff"],
  ["pgm", "image/x-portable-graymap"],
  ["ppm", "image/x-portable-pixmap"],
  ["pbm", "image/x-portable-bitmap"],
  ["pnm", "image/x-portable-anymap"],
  ["pam", "image/x-portable-arbitrarymap"],
  ["npy", "application/x-npy"],
  ["json", "application/json"],
  ["h264", "video/h264"],
  ["h265", "video/h265"],
]);

export const binaryType = "application/octet-stream";

/** Returns the media type of a frame with this name. Default: `binaryType`. */
export function mediaTypeOf(name: string): string {
  const extension = name.slice(name.lastIndexOf(".") + 1).toLowerCase();
  return typesByExtension.get(extension) ?? binaryType;
}

/** Returns the extension for a media type; `undefined` if the type is unknown. */
export function extensionOfType(type: string): string | undefined {
  const [name] = type.toLowerCase().split(";", 1);
  for (const [extension, known] of typesByExtension) {
    if (known === name!.trim()) return extension;
  }
  return undefined;
}
