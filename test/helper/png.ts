import { crc32, deflateSync } from "node:zlib";

/** An image: rows from the top, 16-bit samples big-endian. */
export interface Picture {
  width: number;
  height: number;
  colour: "rgb8" | "grey16";
  pixels: Uint8Array;
}

const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);

/** Encodes an image as PNG without compression. */
export function encodePng({ width, height, colour, pixels }: Picture): Uint8Array {
  const rowBytes = width * (colour === "rgb8" ? 3 : 2);
  if (pixels.length !== rowBytes * height) {
    throw new RangeError(`${width}x${height} ${colour} takes ${rowBytes * height} bytes`);
  }
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header[8] = colour === "rgb8" ? 8 : 16;
  header[9] = colour === "rgb8" ? 2 : 0;
  // Each row begins with its filter type; 0 is none.
  const rows = new Uint8Array((rowBytes + 1) * height);
  for (let y = 0; y < height; y++) {
    rows.set(pixels.subarray(y * rowBytes, (y + 1) * rowBytes), y * (rowBytes + 1) + 1);
  }
  return Buffer.concat([
    signature,
    chunk("IHDR", header),
    chunk("IDAT", deflateSync(rows, { level: 1 })),
    chunk("IEND", new Uint8Array(0)),
  ]);
}

function chunk(type: string, body: Uint8Array): Uint8Array {
  const bytes = Buffer.alloc(12 + body.length);
  bytes.writeUInt32BE(body.length, 0);
  bytes.write(type, 4, "latin1");
  bytes.set(body, 8);
  bytes.writeUInt32BE(crc32(bytes.subarray(4, 8 + body.length)), 8 + body.length);
  return bytes;
}
