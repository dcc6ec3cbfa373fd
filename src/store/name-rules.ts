/**
 * Checks names from peers before they become paths. Names that could leave the store are refused on
 * every system. Names that Windows or macOS cannot store are refused only for portable stores.
 */
import { compileCheaply } from "../common/compilation.ts";
import { errors, type ErrorName, FramesError } from "../errors.ts";

const utf8 = new TextEncoder();
const maxPartBytes = 255;
const maxSourceBytes = 1024;
const maxParts = 32;

/**
 * Checks one part of a path: the name of a frame or stream, or one folder of a source.
 *
 * @throws {FramesError} `bad-name`, or with `portable` also `unportable-name`
 */
export function checkPathPart(part: string, portable: boolean): void {
  const reason = unsafeReason(part);
  if (reason !== undefined) throw nameError("bad-name", part, reason);
  if (!portable) return;
  const portableReason = unportableReason(part);
  if (portableReason !== undefined) throw nameError("unportable-name", part, portableReason);
}

/**
 * Returns the path of a source's folder below the store: `STREAM/SOURCE`. For a source that is
 * named like its stream, this is `STREAM`.
 *
 * @throws {FramesError} as `checkPathPart`
 */
export function sourceFolderPath(stream: string, source: string, portable: boolean): string {
  checkPathPart(stream, portable);
  if (source === stream) return stream;
  if (utf8.encode(source).length > maxSourceBytes) {
    throw nameError("bad-name", source, `it is longer than ${maxSourceBytes} bytes`);
  }
  const parts = source.split("/");
  if (parts.length > maxParts) {
    throw nameError("bad-name", source, `it has more than ${maxParts} parts`);
  }
  for (const part of parts) checkPathPart(part, portable);
  return `${stream}/${source}`;
}

/**
 * Returns a path without differences in case and Unicode form. Two paths with the same result name
 * the same file on Windows and macOS.
 */
export function foldPath(path: string): string {
  return path.normalize("NFC").toLowerCase().toUpperCase().toLowerCase().normalize("NFC");
}

// C0, DEL and C1. File names never need them, and terminals act on them.
const controlCharacter = /\p{Cc}/u;

/** Returns why a part could leave the store or do other harm, or undefined if it is safe. */
function unsafeReason(part: string): string | undefined {
  if (part === "") return "it is empty";
  if (part.startsWith(".")) return "it begins with a dot";
  if (!part.isWellFormed()) return "it is not valid Unicode";
  if (controlCharacter.test(part)) return "it contains a control character";
  if (part.includes("/")) return "it contains a slash";
  // A backslash separates paths on Windows and starts \\server\share.
  if (part.includes("\\")) return "it contains a backslash";
  // `C:` alone is a drive. `C:name` is a valid name on Linux, so only the portable check refuses
  // it.
  if (/^[A-Za-z]:$/.test(part)) return "it is a drive letter";
  // A string has at most three UTF-8 bytes per UTF-16 unit, so short parts need no encoding.
  if (part.length * 3 > maxPartBytes && utf8.encode(part).length > maxPartBytes) {
    return `it is longer than ${maxPartBytes} bytes`;
  }
  return undefined;
}

const windowsDevice = /^(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³]) *(?:\.|$)/i;

/** Returns why Windows or macOS cannot store a file with this name, or undefined if they can. */
function unportableReason(part: string): string | undefined {
  const character = /[<>:"|?*]/.exec(part)?.[0];
  if (character !== undefined) return `it contains ${character}`;
  if (/[. ]$/.test(part)) return "it ends in a dot or a space";
  if (windowsDevice.test(part)) return "it is the name of a device on Windows";
  return undefined;
}

function nameError(code: ErrorName, name: string, reason: string): FramesError {
  const shortened = name.length > 80 ? `${name.slice(0, 80)}…` : name;
  return new FramesError(code, `${errors[code].sentence}: ${JSON.stringify(shortened)}: ${reason}`);
}

compileCheaply(unsafeReason);
