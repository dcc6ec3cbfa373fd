/** Media types of images by file extension. */

const mediaTypes: Readonly<Record<string, string>> = {
  avif: "image/avif",
  bmp: "image/bmp",
  exr: "image/x-exr",
  gif: "image/gif",
  heic: "image/heic",
  jpeg: "image/jpeg",
  jpg: "image/jpeg",
  jp2: "image/jp2",
  json: "application/json",
  pbm: "image/x-portable-bitmap",
  pgm: "image/x-portable-graymap",
  png: "image/png",
  pnm: "image/x-portable-anymap",
  ppm: "image/x-portable-pixmap",
  tif: "image/tiff",
  tiff: "image/tiff",
  webp: "image/webp",
};

/** Returns the media type of a frame with this name. Default: `application/octet-stream`. */
export function imageMediaType(name: string): string {
  const extension = name.slice(name.lastIndexOf(".") + 1).toLowerCase();
  return (
    (Object.hasOwn(mediaTypes, extension) ? mediaTypes[extension] : undefined) ??
    "application/octet-stream"
  );
}
