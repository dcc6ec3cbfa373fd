// Field-coded video (PAFF), which no free encoder makes: H.264 of 16x32 pixels, written bit by bit. Each
// field is an access unit of one macroblock without compression.

class Bits {
  #bits = "";

  fixed(value: number, length: number): this {
    this.#bits += value.toString(2).padStart(length, "0");
    return this;
  }

  /** Exp-Golomb codes without a sign; only zeros have one here. */
  golomb(...values: number[]): this {
    for (const value of values) {
      const digits = (value + 1).toString(2);
      this.#bits += "0".repeat(digits.length - 1) + digits;
    }
    return this;
  }

  /** Returns the bits, filled up to a whole byte. */
  bytes(): Buffer {
    const whole = this.#bits.padEnd(Math.ceil(this.#bits.length / 8) * 8, "0");
    return Buffer.from(whole.match(/.{8}/g)!.map((byte) => parseInt(byte, 2)));
  }
}

/** Returns a NAL unit: its header, and its content with the bytes that prevent start codes. */
function nalUnit(header: number, content: Uint8Array): Buffer {
  const bytes: number[] = [];
  let zeros = 0;
  for (const byte of content) {
    if (zeros >= 2 && byte <= 3) {
      bytes.push(3);
      zeros = 0;
    }
    zeros = byte === 0 ? zeros + 1 : 0;
    bytes.push(byte);
  }
  return Buffer.from([0, 0, 0, 1, header, ...bytes]);
}

/** Sequence parameter set: main profile, fields allowed; and picture parameter set: CAVLC. */
const sequenceSet = nalUnit(
  0x67,
  new Bits()
    .fixed(77, 8)
    .fixed(0, 8)
    .fixed(30, 8)
    // Id, frame numbers and picture order of 4 bits, one reference frame.
    .golomb(0, 0, 0, 0, 1)
    .fixed(0, 1)
    // One macroblock wide, and one high in each field.
    .golomb(0, 0)
    .fixed(0b0_0_1_0_0_1, 6)
    .bytes(),
);
const pictureSet = nalUnit(
  0x68,
  new Bits()
    .golomb(0, 0)
    .fixed(0, 2)
    .golomb(0, 0, 0)
    .fixed(0, 3)
    .golomb(0, 0, 0)
    .fixed(0b1001, 4)
    .bytes(),
);

/** Returns a field with one brightness: an I picture. */
function field(frame: number, isBottom: boolean, isIdr: boolean, brightness: number): Buffer {
  const bits = new Bits()
    .golomb(0, 7, 0)
    .fixed(frame % 16, 4)
    .fixed(1, 1)
    .fixed(Number(isBottom), 1);
  if (isIdr) bits.golomb(0);
  bits.fixed((2 * frame) % 16, 4);
  // How references are marked, the quality, no deblocking, and a macroblock that is not compressed.
  bits.fixed(0, isIdr ? 2 : 1).golomb(0, 1, 25);
  const samples = Buffer.alloc(384, brightness);
  return nalUnit(isIdr ? 0x65 : 0x61, Buffer.concat([bits.bytes(), samples, Buffer.from([0x80])]));
}

/**
 * Returns access units: two fields for each frame. Every `groupFrames` frames the first one is a key
 * frame.
 */
export function fieldUnits(frames: number, groupFrames: number): Buffer[] {
  return Array.from({ length: frames }, (_, frame) => {
    const isKey = frame % groupFrames === 0;
    const number = frame % groupFrames;
    const top = field(number, false, isKey, 20 + frame);
    const sets = isKey ? [sequenceSet, pictureSet] : [];
    return [Buffer.concat([...sets, top]), field(number, true, false, 120 + frame)];
  }).flat();
}
