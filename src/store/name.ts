/**
 * The one place where names that a peer sent become paths. What could leave the store is refused
 * everywhere; what Windows and macOS cannot keep only where it matters.
 */
import { errors, type ErrorName, FramesError } from "../errors.ts";

const utf8 = new TextEncoder();
const longestPart = 255;
const longestSource = 1024;
const mostParts = 32;

/**
 * Accepts one part of a path: a frame, a stream, or a folder of a source.
 *
 * @throws {FramesError} `bad-name`, or with `portable` also `unportable-name`
 */
export function checkPart(part: string, portable: boolean): void {
  const wrong = unsafe(part);
  if (wrong !== undefined) throw refusal("bad-name", part, wrong);
  if (!portable) return;
  const unkept = unportable(part);
  if (unkept !== undefined) throw refusal("unportable-name", part, unkept);
}

/**
 * Path of a source's folder below the store: `STREAM/SOURCE`, or `STREAM` for the source that is
 * named like its stream.
 *
 * @throws {FramesError} as `checkPart`
 */
export function sourceFolder(stream: string, source: string, portable: boolean): string {
  checkPart(stream, portable);
  if (source === stream) return stream;
  if (utf8.encode(source).length > longestSource) {
    throw refusal("bad-name", source, `it is longer than ${longestSource} bytes`);
  }
  const parts = source.split("/");
  if (parts.length > mostParts) {
    throw refusal("bad-name", source, `it has more than ${mostParts} parts`);
  }
  for (const part of parts) checkPart(part, portable);
  return `${stream}/${source}`;
}

/** What a file system that ignores case and Unicode forms makes of a path: equal means the same file. */
export function foldPath(path: string): string {
  return path.normalize("NFC").toLowerCase().toUpperCase().toLowerCase().normalize("NFC");
}

// C0, DEL and C1: none has a place in a file name, and terminals obey them.
const control = /\p{Cc}/u;

/** Why a part could leave the store or do other harm, or undefined. */
function unsafe(part: string): string | undefined {
  if (part === "") return "it is empty";
  if (part.startsWith(".")) return "it begins with a dot";
  if (!part.isWellFormed()) return "it is not valid Unicode";
  if (control.test(part)) return "it holds a control character";
  if (part.includes("/")) return "it holds a slash";
  // A path separator, and the beginning of \\server\share, on Windows.
  if (part.includes("\\")) return "it holds a backslash";
  // `C:` alone is a drive; `C:name` is a good name on Linux and refused where it is not.
  if (/^[A-Za-z]:$/.test(part)) return "it is a drive letter";
  // No string has fewer bytes than characters, and at most three times as many: count only if needed.
  if (part.length * 3 > longestPart && utf8.encode(part).length > longestPart) {
    return `it is longer than ${longestPart} bytes`;
  }
  return undefined;
}

const device = /^(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³]) *(?:\.|$)/i;

/** Why Windows or macOS cannot keep a part under this name, or undefined. */
function unportable(part: string): string | undefined {
  const character = /[<>:"|?*]/.exec(part)?.[0];
  if (character !== undefined) return `it holds ${character}`;
  if (/[. ]$/.test(part)) return "it ends in a dot or a space";
  if (device.test(part)) return "it is the name of a device on Windows";
  return undefined;
}

function refusal(code: ErrorName, name: string, why: string): FramesError {
  const shown = name.length > 80 ? `${name.slice(0, 80)}…` : name;
  return new FramesError(code, `${errors[code].sentence}: ${JSON.stringify(shown)}: ${why}`);
}
