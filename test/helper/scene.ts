// A made scene at dusk, as three cameras on one mast see it: a car and a walker pass a house.

import { encodePng } from "./png.ts";

/** What a camera of the scene measures. */
export type SceneCamera = "visible" | "thermal" | "depth";

/** What lies at a point: its colour, its temperature in °C and its distance in metres. */
interface Surface {
  readonly colour: readonly [number, number, number];
  readonly celsius: number;
  readonly metres: number;
}

const horizon = 0.47;
const roadTop = 0.7;
const roadBottom = 0.84;

function mix(one: number, other: number, share: number): number {
  return one + (other - one) * Math.min(1, Math.max(0, share));
}

function mixColours(
  one: Surface["colour"],
  other: Surface["colour"],
  share: number,
): Surface["colour"] {
  return [0, 1, 2].map((at) => mix(one[at]!, other[at]!, share)) as [number, number, number];
}

/** A line of hills, from sines that do not repeat within the width. */
function ridge(x: number, seed: number, rough: number): number {
  let height = 0;
  for (let octave = 1; octave <= 4; octave++) {
    height += Math.sin(x * 5.1 * 1.9 ** octave + seed * octave * 1.7) / 2.1 ** octave;
  }
  return height * rough;
}

function isInside(x: number, y: number, left: number, top: number, right: number, bottom: number) {
  return x >= left && x < right && y >= top && y < bottom;
}

/** How far a point is outside a capsule between two points; negative inside. */
function capsule(x: number, y: number, ends: readonly number[], radius: number): number {
  const [ax, ay, bx, by] = ends as [number, number, number, number];
  const along = ((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / ((bx - ax) ** 2 + (by - ay) ** 2);
  const share = Math.min(1, Math.max(0, along));
  return Math.hypot(x - mix(ax, bx, share), y - mix(ay, by, share)) - radius;
}

function walker(x: number, y: number, time: number): Surface | undefined {
  const [left, foot] = [mix(0.92, 0.5, time), 0.95];
  const swing = 0.035 * Math.sin(time * 44);
  const at = x - left;
  const skin = { colour: [214, 164, 132], celsius: 33.5, metres: 5 } as const;
  const coat = { colour: [176, 52, 44], celsius: 26.5, metres: 5 } as const;
  const dark = { colour: [38, 42, 58], celsius: 24.5, metres: 5 } as const;
  if (Math.hypot(at, (y - foot + 0.378) / 1.15) < 0.025) return skin;
  if (isInside(at, y, -0.009, foot - 0.36, 0.009, foot - 0.33)) return skin;
  if (capsule(at, y, [0, foot - 0.31, -swing * 0.9, foot - 0.185], 0.014) < 0) return coat;
  if (capsule(at, y, [-0.002, foot - 0.31, 0.004, foot - 0.2], 0.032) < 0) return coat;
  if (capsule(at, y, [0, foot - 0.17, swing, foot - 0.01], 0.017) < 0) return dark;
  if (capsule(at, y, [0, foot - 0.17, -swing, foot - 0.01], 0.017) < 0) return dark;
  return undefined;
}

function car(x: number, y: number, time: number): Surface | undefined {
  const [middle, base, metres] = [mix(-0.14, 0.99, time), 0.795, 11];
  const at = x - middle;
  const tyre = { colour: [20, 20, 24], celsius: 31, metres } as const;
  for (const wheel of [-0.075, 0.078]) {
    const out = Math.hypot(at - wheel, (y - base) / 1.25);
    if (out < 0.009) return { ...tyre, colour: [150, 152, 158], celsius: 38 };
    if (out < 0.023) return tyre;
  }
  if (isInside(at, y, 0.114, base - 0.058, 0.126, base - 0.04)) {
    return { colour: [255, 246, 200], celsius: 44, metres };
  }
  if (isInside(at, y, -0.126, base - 0.058, -0.119, base - 0.038)) {
    return { colour: [235, 40, 30], celsius: 27, metres };
  }
  if (isInside(at, y, -0.126, base - 0.068, 0.126, base)) {
    const sheen = mix(30, -35, (y - base + 0.068) / 0.068);
    // The engine is under the hood, so the front is warm.
    const engine = Math.exp(-(((at - 0.085) / 0.04) ** 2));
    return {
      colour: [48 + sheen, 108 + sheen, 158 + sheen],
      celsius: mix(17, 41, engine),
      metres,
    };
  }
  const slope = (base - 0.068 - y) * 0.9;
  if (isInside(at, y, -0.095 + slope, base - 0.125, 0.06 - slope, base - 0.068)) {
    const isFrame = y < base - 0.118 || Math.abs(at + 0.02) < 0.004;
    if (isFrame) return { colour: [44, 98, 146], celsius: 16, metres };
    return { colour: [150, 178, 196], celsius: 20, metres };
  }
  return undefined;
}

function house(x: number, y: number): Surface | undefined {
  const metres = 26;
  if (isInside(x, y, 0.275, 0.295, 0.3, 0.4) && y > 0.3) {
    return { colour: [104, 64, 56], celsius: 29, metres };
  }
  if (y >= 0.33 && y < 0.46 && Math.abs(x - 0.22) < 0.03 + (y - 0.33) * 1.05) {
    const row = Math.floor(y * 90) % 2 === 0 ? 6 : 0;
    return { colour: [112 + row, 58 + row, 50 + row], celsius: 7.5, metres };
  }
  if (!isInside(x, y, 0.09, 0.46, 0.35, 0.66)) return undefined;
  for (const left of [0.118, 0.272]) {
    if (!isInside(x, y, left, 0.5, left + 0.052, 0.57)) continue;
    const isBar = Math.abs(x - left - 0.026) < 0.002 || Math.abs(y - 0.535) < 0.0025;
    if (isBar) return { colour: [70, 58, 52], celsius: 13, metres };
    return { colour: [255, 206, 120], celsius: 19.5, metres };
  }
  if (isInside(x, y, 0.2, 0.53, 0.244, 0.66)) return { colour: [74, 60, 64], celsius: 16, metres };
  const shade = mix(10, -20, (x - 0.09) / 0.26);
  return { colour: [206 + shade, 192 + shade, 176 + shade], celsius: 12.5, metres };
}

function trees(x: number, y: number): Surface | undefined {
  for (const [left, top, size, metres] of [
    [0.43, 0.47, 0.055, 34],
    [0.485, 0.485, 0.04, 37],
    [0.9, 0.44, 0.075, 24],
    [0.035, 0.49, 0.05, 22],
  ] as const) {
    const edge = size * (1 + 0.09 * Math.sin(11 * Math.atan2(y - top, x - left) + left * 40));
    const out = Math.hypot(x - left, (y - top) / 1.3);
    if (out < edge) {
      const light = mix(26, -14, (y - top + size) / (2.6 * size)) + (90 * (x - left)) / (size * 9);
      return { colour: [48 + light, 76 + light, 50 + light * 0.6], celsius: 10.4, metres };
    }
    if (isInside(x, y, left - 0.006, top, left + 0.006, top + 2.4 * size)) {
      return { colour: [66, 50, 42], celsius: 10.8, metres };
    }
  }
  return undefined;
}

/** The ground, the hills and the sky; what is farther than the sensor reaches has no distance. */
function land(x: number, y: number): Surface {
  const metres = Math.min(45, 2.6 / Math.max(0.02, y - horizon));
  if (y > roadTop && y < roadBottom) {
    const isDash = Math.abs(y - 0.77) < 0.006 && (x * 6) % 1 < 0.55;
    const isEdge = y < roadTop + 0.008 || y > roadBottom - 0.01;
    if (isDash) return { colour: [226, 220, 196], celsius: 13.5, metres };
    if (isEdge) return { colour: [150, 144, 136], celsius: 12.5, metres };
    const tone = mix(84, 66, (y - roadTop) / (roadBottom - roadTop));
    return { colour: [tone, tone, tone + 6], celsius: 15, metres };
  }
  if (y > 0.57 + ridge(x, 1, 0.006)) {
    const near = (y - 0.57) / 0.43;
    const tuft = 7 * Math.sin(x * 190 + Math.sin(y * 260) * 3) * near;
    return {
      colour: [mix(150, 66, near) + tuft, mix(146, 92, near) + tuft, mix(84, 48, near)],
      celsius: mix(7.5, 9.5, near),
      metres,
    };
  }
  for (const [base, seed, rough, colour, celsius, far] of [
    [0.525, 2.1, 0.05, [72, 84, 88], 6.5, 0],
    [0.46, 4.4, 0.1, [104, 102, 122], 4.5, 0],
    [0.39, 7.7, 0.13, [152, 132, 146], 2.5, 0],
  ] as const) {
    if (y > base - ridge(x, seed, rough)) return { colour, celsius, metres: far };
  }
  const [top, low] = [[58, 84, 134] as const, [250, 186, 128] as const];
  const sun = Math.hypot(x - 0.68, (y - 0.24) * 0.75);
  const glow = mixColours(mixColours(top, low, y / 0.44), [255, 236, 190], Math.exp(-sun * 9));
  const colour = mixColours([255, 248, 224], glow, (sun - 0.03) * 300);
  return { colour, celsius: mix(-14, -3, y / 0.4), metres: 0 };
}

/** Values of a surface for a camera: colours, hundredths of a kelvin, or millimetres. */
function measure(camera: SceneCamera, { colour, celsius, metres }: Surface): readonly number[] {
  if (camera === "visible") return colour;
  return [camera === "thermal" ? 100 * (celsius + 273.15) : 1000 * metres];
}

/** What stands still, as values of each pixel, by camera and size. */
const backgrounds = new Map<string, Float32Array>();

/** Points of a pixel: four smooth the edges of what is seen, a sensor of 16 bits measures one. */
function pointsOf(camera: SceneCamera): readonly number[] {
  return camera === "visible" ? [0.25, 0.75] : [0.5];
}

function drawBackground(camera: SceneCamera, width: number, height: number): Float32Array {
  const points = pointsOf(camera);
  const channels = camera === "visible" ? 3 : 1;
  const values = new Float32Array(width * height * channels);
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < width; column++) {
      for (const down of points) {
        for (const right of points) {
          const [x, y] = [(column + right) / width, (row + down) / height];
          const measured = measure(camera, house(x, y) ?? trees(x, y) ?? land(x, y));
          for (let at = 0; at < channels; at++) {
            values[(row * width + column) * channels + at]! += measured[at]! / points.length ** 2;
          }
        }
      }
    }
  }
  return values;
}

/**
 * Draws the scene as PNG.
 *
 * @param time from 0 to 1, the way of the car and the walker
 */
export function drawScene(
  camera: SceneCamera,
  width: number,
  height: number,
  time: number,
): Uint8Array {
  const key = `${camera} ${width}x${height}`;
  const background = backgrounds.get(key) ?? drawBackground(camera, width, height);
  backgrounds.set(key, background);
  const values = background.slice();
  const points = pointsOf(camera);
  const channels = camera === "visible" ? 3 : 1;
  // The car and the walker are below the middle.
  for (let row = height >> 1; row < height; row++) {
    for (let column = 0; column < width; column++) {
      for (const down of points) {
        for (const right of points) {
          const [x, y] = [(column + right) / width, (row + down) / height];
          const mover = walker(x, y, time) ?? car(x, y, time);
          if (mover === undefined) continue;
          const measured = measure(camera, mover);
          const start = (row * width + column) * channels;
          for (let at = 0; at < channels; at++) {
            values[start + at]! += (measured[at]! - background[start + at]!) / points.length ** 2;
          }
        }
      }
    }
  }
  const pixels = Buffer.alloc(values.length * (camera === "visible" ? 1 : 2));
  for (let at = 0; at < values.length; at++) {
    const value = Math.max(0, Math.round(values[at]!));
    if (camera === "visible") pixels[at] = Math.min(255, value);
    else pixels.writeUInt16BE(Math.min(65_535, value), at * 2);
  }
  const colour = camera === "visible" ? "rgb8" : "grey16";
  return encodePng({ width, height, colour, pixels });
}
