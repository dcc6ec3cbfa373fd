/** Names of a folder's frames, a million of them in some twenty megabytes. */

/** A list of names that does not change. */
export class NameList implements Iterable<string> {
  readonly length: number;
  readonly #bytes: Buffer;
  /** Where each name ends in `#bytes`. */
  readonly #ends: Float64Array;

  constructor(names: readonly string[]) {
    this.length = names.length;
    this.#ends = new Float64Array(names.length);
    let end = 0;
    names.forEach((name, index) => {
      this.#ends[index] = end += Buffer.byteLength(name);
    });
    this.#bytes = Buffer.allocUnsafe(end);
    names.forEach((name, index) => {
      this.#bytes.write(name, this.#start(index), "utf8");
    });
  }

  #start(index: number): number {
    return index === 0 ? 0 : this.#ends[index - 1]!;
  }

  /** @param index from 0 */
  at(index: number): string {
    return this.#bytes.toString("utf8", this.#start(index), this.#ends[index]);
  }

  *[Symbol.iterator](): Iterator<string> {
    for (let index = 0; index < this.length; index++) yield this.at(index);
  }
}
