/** Interface of the parsers that find the end of one image in a stream, and their errors. */

/**
 * Finds the end of an image by its structure. Takes bytes in pieces of any size and keeps none of
 * them. The result does not depend on how the bytes are divided.
 */
export interface ImageParser {
  /** Name of the format for messages, with its article. */
  readonly label: string;
  /** File name extension without the dot; known once the image is complete. */
  readonly extension: string;
  /** Size of the whole image in bytes, once its header declares it. */
  readonly size: number | undefined;
  /** Whether the image is complete if the input ends here. */
  readonly isComplete: boolean;
  /**
   * Bytes at the start of a damaged image that cannot contain the start of the next image. At
   * least 1.
   */
  readonly trustedBytes: number;
  /**
   * Bytes at the start of a damaged image in which a whole image is a part of it, such as its
   * thumbnail.
   */
  readonly embeddedBytes: number;
  /**
   * Parses the next bytes of the image.
   *
   * @returns number of bytes that belong to the image, or -1 if all do and the image continues
   * @throws {ImageError}
   */
  parse(bytes: Uint8Array): number;
}

/** An image is malformed. */
export class ImageError extends Error {
  /** Offset of the problem in the bytes passed last; negative if it lies in earlier bytes. */
  readonly offset: number;

  constructor(at: number, message: string) {
    super(message);
    this.name = "ImageError";
    this.offset = at;
  }
}

/** An image is larger than the limit. Thrown as soon as its header declares the size. */
export class ImageTooLargeError extends ImageError {
  constructor() {
    super(0, "it is too large");
  }
}

/** The first bytes match no supported format. */
export class UnknownImageError extends ImageError {
  constructor(at: number) {
    super(at, "it does not begin like an image");
  }
}

/** Returns `bytes` as quoted text without characters that could control a terminal. */
export function quoteBytes(bytes: Uint8Array): string {
  const text = JSON.stringify(Buffer.from(bytes).toString("latin1"));
  return text.replace(
    /[\x7f-\xff]/g,
    (character) => `\\u00${character.charCodeAt(0).toString(16)}`,
  );
}
