/** Name and version of this software. */
import { version } from "../package.json" with { type: "json" };

export { version };

/** Name and version as sent in HELLO and WELCOME. */
export const software = `frames ${version}`;
