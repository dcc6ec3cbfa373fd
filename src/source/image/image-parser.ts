/** What reads one image of a stream to its end: an `ImageReader` for each format, and how it fails. */

/**
 * Finds where an image ends by the structure of the image. It is given the bytes in pieces, cut
 * anywhere, keeps none of them, and says the same however they are cut.
 */
export interface ImageParser {
  /** What it reads, for people. */
  readonly label: string;
  /** How its files end; known when the image is whole. */
  readonly extension: string;
  /** Bytes of the whole image, once it has said so. */
  readonly size: number | undefined;
  /** Whether the image is whole if no more comes. */
  readonly isComplete: boolean;
  /**
   * Takes the next bytes of the image.
   *
   * @returns how many of them are the image's, or -1 if all are and the image goes on
   * @throws {ImageError}
   */
  parse(bytes: Uint8Array): number;
}

/** Why an image cannot be read on. */
export class ImageError extends Error {
  /** Where, counted from the piece that was being read: negative if it began in an earlier one. */
  readonly offset: number;

  constructor(at: number, message: string) {
    super(message);
    this.name = "ImageError";
    this.offset = at;
  }
}

/**
 * An image says that it is larger than one may be: told when it says so, before anything more of it is
 * looked at.
 */
export class ImageTooLargeError extends ImageError {
  constructor() {
    super(0, "it is too large");
  }
}

/** The first bytes are of no format that can be read. */
export class UnknownImageError extends ImageError {
  constructor(at: number) {
    super(at, "it begins like no image");
  }
}

/** `bytes` as text in quotes, with nothing in it that could steer a terminal. */
export function quoteBytes(bytes: Uint8Array): string {
  const text = JSON.stringify(Buffer.from(bytes).toString("latin1"));
  return text.replace(
    /[\x7f-\xff]/g,
    (character) => `\\u00${character.charCodeAt(0).toString(16)}`,
  );
}
