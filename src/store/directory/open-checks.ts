/** Checks of a directory before the store in it is opened. */
import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { FramesError } from "../../errors.ts";
import { journalPath } from "../journal/schema.ts";

/**
 * Checks that `.frames` holds only files and folders. A link there could redirect writes out of the
 * store.
 *
 * @throws {FramesError} `store`
 */
export function checkHiddenFolder(folder: string): void {
  const unexpected = readdirSync(folder, { withFileTypes: true }).find((entry) => {
    return !entry.isFile() && !entry.isDirectory();
  });
  if (unexpected === undefined) return;
  throw new FramesError(
    "store",
    `Cannot write the store: ${join(folder, unexpected.name)} is not a file; delete it`,
  );
}

/**
 * Checks that a store with folders still has its journal. With a new, empty journal every frame
 * would count as unknown. Frames that were moved away would be stored again.
 *
 * @throws {FramesError} `store`
 */
export function checkJournalNotLost(root: string): void {
  const path = journalPath(root);
  if ((statSync(path, { throwIfNoEntry: false })?.size ?? 0) > 0) return;
  const hasFolders = readdirSync(root, { withFileTypes: true }).some(
    (entry) => entry.isDirectory() && !entry.name.startsWith("."),
  );
  if (!hasFolders) return;
  throw new FramesError(
    "store",
    `Cannot serve ${root}: its frames have no journal; run frames verify ${root} --repair to make a new one`,
  );
}
