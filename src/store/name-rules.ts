/**
 * The one place where names that a peer sent become paths. What could leave the store is refused
 * everywhere; what Windows and macOS cannot keep only where it matters.
 */
import { errors, type ErrorName, FramesError } from "../errors.ts";

const utf8 = new TextEncoder();
const maxPartBytes = 255;
const maxSourceBytes = 1024;
const maxParts = 32;

/**
 * Accepts one part of a path: a frame, a stream, or a folder of a source.
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
 * Path of a source's folder below the store: `STREAM/SOURCE`, or `STREAM` for the source that is
 * named like its stream.
 *
 * @throws {FramesError} as `checkPart`
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

/** What a file system that ignores case and Unicode forms makes of a path: equal means the same file. */
export function foldPath(path: string): string {
  return path.normalize("NFC").toLowerCase().toUpperCase().toLowerCase().normalize("NFC");
}

// C0, DEL and C1: none has a place in a file name, and terminals obey them.
const controlCharacter = /\p{Cc}/u;

/** Why a part could leave the store or do other harm, or undefined. */
function unsafeReason(part: string): string | undefined {
  if (part === "") return "it is empty";
  if (part.startsWith(".")) return "it begins with a dot";
  if (!part.isWellFormed()) return "it is not valid Unicode";
  if (controlCharacter.test(part)) return "it holds a control character";
  if (part.includes("/")) return "it holds a slash";
  // A path separator, and the beginning of \\server\share, on Windows.
  if (part.includes("\\")) return "it holds a backslash";
  // `C:` alone is a drive; `C:name` is a good name on Linux and refused where it is not.
  if (/^[A-Za-z]:$/.test(part)) return "it is a drive letter";
  // No string has fewer bytes than characters, and at most three times as many: count only if needed.
  if (part.length * 3 > maxPartBytes && utf8.encode(part).length > maxPartBytes) {
    return `it is longer than ${maxPartBytes} bytes`;
  }
  return undefined;
}

const windowsDevice = /^(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³]) *(?:\.|$)/i;

/** Why Windows or macOS cannot keep a part under this name, or undefined. */
function unportableReason(part: string): string | undefined {
  const character = /[<>:"|?*]/.exec(part)?.[0];
  if (character !== undefined) return `it holds ${character}`;
  if (/[. ]$/.test(part)) return "it ends in a dot or a space";
  if (windowsDevice.test(part)) return "it is the name of a device on Windows";
  return undefined;
}

function nameError(code: ErrorName, name: string, reason: string): FramesError {
  const shortened = name.length > 80 ? `${name.slice(0, 80)}…` : name;
  return new FramesError(code, `${errors[code].sentence}: ${JSON.stringify(shortened)}: ${reason}`);
}
