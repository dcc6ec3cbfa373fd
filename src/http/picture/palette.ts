/** Colour palettes that map sample values to colours, from low to high. */

/** Palette names, in menu order. */
export const paletteNames = ["grey", "iron", "inferno"] as const;
export type PaletteName = (typeof paletteNames)[number];

/** Red, green, blue. */
type Colour = readonly [number, number, number];

/** Evenly spaced control points. */
const controlPoints: Record<PaletteName, readonly Colour[]> = {
  grey: [
    [0, 0, 0],
    [255, 255, 255],
  ],
  // The colour order is that of "iron" in thermal cameras. The points are our own, chosen so that
  // lightness rises evenly.
  iron: [
    [0, 0, 10],
    [32, 0, 108],
    [103, 4, 150],
    [170, 24, 136],
    [216, 62, 72],
    [240, 110, 16],
    [253, 162, 10],
    [255, 214, 72],
    [255, 252, 232],
  ],
  // "inferno" of matplotlib (Stéfan van der Walt and Nathaniel Smith, CC0), ten of its 256 colours.
  inferno: [
    [0x00, 0x00, 0x04],
    [0x1b, 0x0c, 0x41],
    [0x4a, 0x0c, 0x6b],
    [0x78, 0x1c, 0x6d],
    [0xa5, 0x2c, 0x60],
    [0xcf, 0x44, 0x46],
    [0xed, 0x69, 0x25],
    [0xfb, 0x9b, 0x06],
    [0xf7, 0xd1, 0x3d],
    [0xfc, 0xff, 0xa4],
  ],
};

/** Returns whether `text` is a palette name. */
export function isPaletteName(text: string): text is PaletteName {
  return (paletteNames as readonly string[]).includes(text);
}

const cache = new Map<PaletteName, Uint8Array<ArrayBuffer>>();

/** Returns the palette's 256 colours as RGBA bytes, opaque. */
export function paletteColours(name: PaletteName): Uint8Array<ArrayBuffer> {
  const cached = cache.get(name);
  if (cached !== undefined) return cached;
  const table = new Uint8Array(256 * 4);
  const points = controlPoints[name];
  for (let index = 0; index < 256; index++) {
    const position = (index / 255) * (points.length - 1);
    const lower = Math.min(Math.floor(position), points.length - 2);
    const fraction = position - lower;
    for (let channel = 0; channel < 3; channel++) {
      const [from, to] = [points[lower]![channel]!, points[lower + 1]![channel]!];
      table[index * 4 + channel] = Math.round(from + (to - from) * fraction);
    }
    table[index * 4 + 3] = 255;
  }
  cache.set(name, table);
  return table;
}

/** Maps values from 0 to 255 to RGBA pixels for a canvas. */
export function applyPalette(
  values: Uint8Array,
  name: PaletteName,
): Uint8ClampedArray<ArrayBuffer> {
  const table = new Uint32Array(paletteColours(name).buffer);
  const pixels = new Uint32Array(values.length);
  for (let index = 0; index < values.length; index++) pixels[index] = table[values[index]!]!;
  return new Uint8ClampedArray(pixels.buffer);
}
