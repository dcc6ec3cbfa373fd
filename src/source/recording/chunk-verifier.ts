/** Compares the chunks of a recording with their checksums, each once, before it is used. */
import { crc32 } from "../../common/checksum.ts";
import { FramesError } from "../../errors.ts";
import { combineCrc32 } from "../../mcap/crc32-combine.ts";
import { readRegion, type Region } from "../../mcap/cursor.ts";
import type { MessagePicture } from "../../mcap/picture.ts";
import type { McapChunk } from "../../mcap/reader.ts";

/** Bytes that are read in one step, so that other work goes on between two. */
const stepBytes = 1 << 20;

/** Returns the pictures of an uncompressed chunk, in their order. */
type PicturesOf = (index: number, chunk: McapChunk) => Iterable<MessagePicture>;

export class ChunkVerifier {
  readonly #chunks: readonly McapChunk[];
  readonly #picturesOf: PicturesOf;
  /** Whether the messages of a chunk can be used, by its index. */
  readonly #usable = new Map<number, boolean>();

  constructor(chunks: readonly McapChunk[], picturesOf: PicturesOf) {
    this.#chunks = chunks;
    this.#picturesOf = picturesOf;
  }

  /** Returns whether the messages of a chunk can be used; undefined before `verify`. */
  isUsable(index: number): boolean | undefined {
    return this.#usable.get(index);
  }

  async verify(index: number): Promise<void> {
    const chunk = this.#chunks[index]!;
    // A compressed chunk is verified whenever it is decompressed.
    const isUnverified = chunk.crc32 !== 0 && chunk.compression === "";
    this.#usable.set(index, !isUnverified || (await this.#hasRightChecksum(index, chunk)));
  }

  async #hasRightChecksum(index: number, chunk: McapChunk): Promise<boolean> {
    const { input, position, length } = chunk.records;
    let crc = 0;
    for (let at = 0; at < length; at += stepBytes) {
      const part = { input, position: position + at, length: Math.min(stepBytes, length - at) };
      crc = crc32(readRegion(part), crc);
      if (at > 0) await new Promise((resolve) => setImmediate(resolve));
    }
    return crc === chunk.crc32 || this.#checksumWithoutPictures(index, chunk) === chunk.crc32;
  }

  /**
   * Computes the checksum of a chunk from the checksums that its messages have of their pictures. If
   * it is right, only pictures are damaged, and each of them is verified when it is read.
   *
   * @returns undefined if there is a picture without a checksum
   */
  #checksumWithoutPictures(index: number, chunk: McapChunk): number | undefined {
    const { input, position, length } = chunk.records;
    let crc = 0;
    let at = position;
    const addUpTo = (end: number) => {
      const part: Region = { input, position: at, length: end - at };
      crc = combineCrc32(crc, crc32(readRegion(part)), part.length);
    };
    try {
      for (const { data, facts } of this.#picturesOf(index, chunk)) {
        if (facts?.crc32 === undefined) return undefined;
        addUpTo(data.position);
        crc = combineCrc32(crc, facts.crc32, data.length);
        at = data.position + data.length;
      }
      addUpTo(position + length);
      return crc;
    } catch (error) {
      if (error instanceof FramesError && error.code === "unreadable") return undefined;
      throw error;
    }
  }
}
