/** Compares a frame whose name is in the journal with the file in place. */
import type { FrameDescription, Outcome, SourceInfo } from "../../frame.ts";
import {
  existingOutcome,
  hasSameBytes,
  isRepeated,
  type StoredBytes,
  type StoredFrameInfo,
} from "../conflict.ts";
import { isIntact, isReadableAnd } from "./file-check.ts";
import type { NameIndex } from "./name-index.ts";
import type { StoreFolder } from "./store-folder.ts";

/** Source of a frame, and the parts of the store that know its name. */
export interface FileDestination {
  readonly sourceInfo: SourceInfo;
  readonly folder: StoreFolder;
  readonly nameIndex: NameIndex;
  readonly batch: {
    /** Adds an existing file, which must be on the disk after the next flush of the store. */
    addExisting(folder: StoreFolder, path: string): void;
  };
}

/**
 * Compares a frame with the file in place. The file is read if its sender may delete its copy.
 *
 * @param mayReplace whether a file that cannot be read counts as other bytes
 * @throws if the file cannot be read
 */
export function existingBytes(
  { sourceInfo, folder }: FileDestination,
  description: FrameDescription,
  stored: StoredFrameInfo,
  crc32: number,
  mayReplace: boolean,
): StoredBytes {
  if (!hasSameBytes(stored, description, crc32)) return "other";
  const kind = folder.entryKind(description.name);
  if (kind === undefined) return "gone";
  if (sourceInfo.verifyStored !== true) return "same";
  const check = () => kind === "file" && isIntact(folder.pathOf(description.name), stored);
  return (mayReplace ? isReadableAnd(check) : check()) ? "same" : "other";
}

/** Ends a frame that does not replace the stored one. */
export function settleExisting(
  destination: FileDestination,
  description: FrameDescription,
  stored: StoredFrameInfo,
  bytes: StoredBytes,
): Outcome {
  const { sourceInfo, nameIndex } = destination;
  nameIndex.markAccounted(sourceInfo, description.sequence);
  if (bytes === "same") flushExisting(destination, description.name);
  if (bytes !== "other") nameIndex.confirm(sourceInfo, description, stored);
  return existingOutcome(sourceInfo, bytes, isRepeated(stored, sourceInfo, description));
}

/**
 * Adds the file in place to the next flush, if that is to be durable. A missing file is added for
 * its row.
 */
export function flushExisting({ sourceInfo, batch, folder }: FileDestination, name: string): void {
  if (sourceInfo.durable !== true || folder.entryKind(name) === "other") return;
  batch.addExisting(folder, folder.pathOf(name));
}
