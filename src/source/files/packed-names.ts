/** Stores the file names of a folder compactly: about 20 MB for a million names. */

/** An immutable list of names: an array, or a `PackedNames` if there are many. */
export interface NameList extends Iterable<string> {
  readonly length: number;
  /** @param index from 0 */
  at(index: number): string | undefined;
}

/** Number of names from which packing saves memory. */
const minPackedCount = 200_000;

/** Returns `names` itself, or a packed copy of a long list. */
export function packNames(names: readonly string[]): NameList {
  return names.length < minPackedCount ? names : new PackedNames(names);
}

export class PackedNames implements NameList {
  readonly length: number;
  readonly #bytes: Buffer;
  /** End offset of each name in `#bytes`. */
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

  at(index: number): string {
    return this.#bytes.toString("utf8", this.#start(index), this.#ends[index]);
  }

  *[Symbol.iterator](): Iterator<string> {
    for (let index = 0; index < this.length; index++) yield this.at(index);
  }
}
