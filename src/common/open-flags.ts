/** Flags for opening files that other processes may replace. */
import { constants } from "node:fs";

/**
 * Opens a file for reading. A symbolic link fails instead of being followed, because it could lead
 * out of the folder. A pipe without a writer does not block. Windows has neither flag.
 */
export const openFlags =
  constants.O_RDONLY | (constants.O_NOFOLLOW ?? 0) | (constants.O_NONBLOCK ?? 0);
