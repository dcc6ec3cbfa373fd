/** The frames of one source of a recording, in the order of the file. */
import { crc32 } from "../../common/checksum.ts";
import { asFramesError, FramesError } from "../../errors.ts";
import type { Frame, FrameSource, Loss, RawShape } from "../../frame.ts";
import { toCaptureTime } from "../../common/capture-time.ts";
import { sliceBytes } from "../../common/file-slices.ts";
import { readRegion } from "../../mcap/cursor.ts";
import { pictureBytes } from "../../mcap/picture.ts";
import type { RecordedPicture, RecordedSource, Recording } from "./recording.ts";
import type { MessagePosition } from "./recording-index.ts";

export class RecordingSource implements FrameSource {
  readonly name: string;
  readonly isResumable = true;
  readonly total: number;
  readonly #recording: Recording;
  readonly #source: RecordedSource;
  /** Whether the frames keep the numbers that they have in the file. */
  readonly #keepsNumbers: boolean;
  #next = 0;

  /** @param name of the source, if it is not to be the one in the file */
  constructor(recording: Recording, source: RecordedSource, name = source.name) {
    this.name = name;
    this.total = source.messages.length;
    this.#recording = recording;
    this.#source = source;
    this.#keepsNumbers = keepsNumbers(source);
    recording.acquire();
  }

  get capturedCount(): number {
    return this.#next;
  }

  next(): Frame | Loss | undefined | Promise<Frame | Loss> {
    if (this.#next === this.total) return undefined;
    const index = this.#next++;
    const position = this.#source.messages.at(index);
    if (!this.#recording.needsVerification(position)) return this.#frameAt(index, position);
    return this.#recording
      .verify(position)
      .catch((error: unknown) => error)
      .then((error) =>
        error === undefined ? this.#frameAt(index, position) : this.#lossOf(index, "", error),
      );
  }

  #numberOf(index: number): number {
    return this.#keepsNumbers ? this.#source.messages.numberAt(index) : index + 1;
  }

  #frameAt(index: number, position: MessagePosition): Frame | Loss {
    try {
      const picture = this.#recording.pictureAt(position);
      return new RecordingFrame(this.#recording, position, picture, this.#numberOf(index));
    } catch (error) {
      return this.#lossOf(index, "", error);
    }
  }

  #lossOf(index: number, name: string, error: unknown): Loss {
    const number = this.#numberOf(index);
    const what = name === "" ? `picture ${index + 1} of the file` : name;
    return { first: number, last: number, what, error: asFramesError(error, "unreadable") };
  }

  retry({ sequence, name }: Frame, error: FramesError): Loss {
    return { first: sequence, last: sequence, what: name, name, error };
  }

  close(): void {
    this.#recording.release();
  }
}

/** Returns whether the frames of a source keep their numbers: those of one session do. */
export function keepsNumbers({ session, isOwn, messages }: RecordedSource): boolean {
  return isOwn && session !== undefined && messages.hasDistinctNumbers();
}

/** Where the bytes of a picture are, and their CRC-32 if it is known. */
type PicturePlace = Pick<RecordedPicture, "data" | "padding"> & {
  readonly crc32: number | undefined;
};

/** A picture of a recording as a frame. */
class RecordingFrame implements Frame {
  readonly name: string;
  readonly sequence: number;
  readonly captured: bigint;
  readonly size: number;
  readonly metadata: string;
  readonly raw: RawShape | undefined;
  readonly #recording: Recording;
  readonly #position: MessagePosition;
  /** Undefined for bytes in memory. They are found again, since thousands of frames may wait. */
  readonly #place: PicturePlace | undefined;

  constructor(
    recording: Recording,
    position: MessagePosition,
    picture: RecordedPicture,
    sequence: number,
  ) {
    const { facts, data, padding, extension, raw } = picture;
    const captured = facts?.captured ?? toCaptureTime(picture.time ?? picture.logTime);
    this.name = facts?.name ?? foreignName(captured, sequence, extension);
    this.sequence = sequence;
    this.captured = captured;
    this.size = padding === undefined ? data.length : padding.rows * padding.rowBytes;
    this.metadata = facts?.metadata ?? "";
    this.raw = raw;
    this.#recording = recording;
    this.#position = position;
    if (recording.isInFile(data)) this.#place = placeOf(picture);
  }

  read(into: Uint8Array): void {
    const { data, padding, crc32: expected } = this.#find();
    if (padding === undefined) {
      if (data.input.read(data.position, into) < this.size) throw damagedPicture();
    } else into.set(pictureBytes({ data, padding }));
    if (expected !== undefined && crc32(into) !== expected) throw damagedPicture();
    this.#recording.checkUnchanged();
  }

  async *pieces(): AsyncGenerator<Uint8Array, undefined> {
    const { data, padding, crc32: expected } = this.#find();
    const packed = padding === undefined ? undefined : pictureBytes({ data, padding });
    let crc = 0;
    for (let at = 0; at < this.size; at += sliceBytes) {
      const length = Math.min(sliceBytes, this.size - at);
      const piece =
        packed?.subarray(at, at + length) ??
        readRegion({ input: data.input, position: data.position + at, length });
      crc = crc32(piece, crc);
      const isLast = at + length === this.size;
      if (isLast && expected !== undefined && crc !== expected) throw damagedPicture();
      if (isLast) this.#recording.checkUnchanged();
      yield piece;
    }
    return undefined;
  }

  #find(): PicturePlace {
    return this.#place ?? placeOf(this.#recording.pictureAt(this.#position));
  }
}

function placeOf({ data, padding, facts }: RecordedPicture): PicturePlace {
  return { data, padding, crc32: facts?.crc32 };
}

function damagedPicture(): FramesError {
  return new FramesError(
    "unreadable",
    "its bytes have another checksum than they were written with",
  );
}

/** Returns a name such as `20261122T071203.123456789Z-00000042.jpg`: unique, and sorted by time. */
function foreignName(captured: bigint, number: number, extension: string): string {
  const nanoseconds = ((captured % 1_000_000_000n) + 1_000_000_000n) % 1_000_000_000n;
  const seconds = new Date(Number((captured - nanoseconds) / 1_000_000n));
  const [start] = seconds.toISOString().replaceAll("-", "").replaceAll(":", "").split(".");
  const fraction = String(nanoseconds).padStart(9, "0");
  return `${start}.${fraction}Z-${String(number).padStart(8, "0")}.${extension}`;
}
