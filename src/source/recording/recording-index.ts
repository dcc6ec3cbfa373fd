/** The frames of a recording, as its beginning-to-end scan found them. */

/** Chunk number of a message outside chunks. */
const noChunk = -1;

/** Where a message is. */
export interface MessagePosition {
  /** Index of its chunk; undefined outside chunks. */
  readonly chunk: number | undefined;
  /** Position of its record: in the file, or in the decompressed records of a compressed chunk. */
  readonly position: number;
}

/** Positions and numbers of many messages, in 20 bytes each. */
export class MessageList {
  #positions = new Float64Array(64);
  #chunks = new Int32Array(64);
  #numbers = new Float64Array(64);
  #length = 0;

  get length(): number {
    return this.#length;
  }

  /** @param number sequence number that the message has for its frame; 0 if it has none */
  add({ chunk = noChunk, position }: MessagePosition, number: number): void {
    if (this.#length === this.#positions.length) this.#grow();
    this.#positions[this.#length] = position;
    this.#chunks[this.#length] = chunk;
    this.#numbers[this.#length] = number;
    this.#length++;
  }

  at(index: number): MessagePosition {
    const chunk = this.#chunks[index]!;
    return { chunk: chunk === noChunk ? undefined : chunk, position: this.#positions[index]! };
  }

  numberAt(index: number): number {
    return this.#numbers[index]!;
  }

  /** Returns whether every message has a number, and no two have the same. */
  hasDistinctNumbers(): boolean {
    const sorted = this.#numbers.slice(0, this.#length).sort();
    return sorted.every((number, index) => number > 0 && number !== sorted[index + 1]);
  }

  #grow(): void {
    const size = this.#length * 2;
    const [positions, chunks, numbers] = [this.#positions, this.#chunks, this.#numbers];
    this.#positions = new Float64Array(size);
    this.#positions.set(positions);
    this.#chunks = new Int32Array(size);
    this.#chunks.set(chunks);
    this.#numbers = new Float64Array(size);
    this.#numbers.set(numbers);
  }
}
