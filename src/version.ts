/** Which software this is. */
import { version } from "../package.json" with { type: "json" };

export { version };

/** As it is said in HELLO and WELCOME. */
export const software = `frames ${version}`;
