/** Reads the size of an image from its header, before it takes memory. */
import type { PixelSize } from "./viewport.ts";

/** First bytes of a PNG, and of its first chunk. */
const pngStart = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0, 0, 0, 13, 0x49, 0x48];

/** Returns the size of a PNG or JPEG. Undefined for other images, and if the header is damaged. */
export function readImageSize(bytes: Uint8Array): PixelSize | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (pngStart.every((byte, index) => bytes[index] === byte)) {
    if (bytes.length < 24) return undefined;
    return { width: view.getUint32(16), height: view.getUint32(20) };
  }
  return bytes[0] === 0xff && bytes[1] === 0xd8 ? readJpegSize(view) : undefined;
}

/** Walks the segments up to the start of frame (ITU-T T.81, annex B). */
function readJpegSize(view: DataView): PixelSize | undefined {
  for (let at = 2; at + 9 <= view.byteLength;) {
    if (view.getUint8(at) !== 0xff) return undefined;
    const marker = view.getUint8(at + 1);
    // SOF0 to SOF15, without DHT, JPG and DAC.
    const isStartOfFrame = (marker & 0xf0) === 0xc0 && ![0xc4, 0xc8, 0xcc].includes(marker);
    if (isStartOfFrame) return { height: view.getUint16(at + 5), width: view.getUint16(at + 7) };
    // Fill bytes may precede a marker.
    at += marker === 0xff ? 1 : 2 + view.getUint16(at + 2);
  }
  return undefined;
}
