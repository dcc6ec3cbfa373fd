/**
 * File `.frames/identity.json`, beside the journal. It repeats the properties by which copies of a
 * store recognize it, so that a journal that cannot be read keeps them when it is rebuilt.
 */
import { readFileSync, renameSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { rowChecks } from "./row-check.ts";

/** Properties that the file repeats. Values are the texts of the table `properties`. */
export interface StoreIdentity {
  readonly identity?: string;
  readonly copy?: string;
}

function identityPath(journalPath: string): string {
  return join(dirname(journalPath), "identity.json");
}

/** Returns the contents of the file. Properties that are absent or damaged are left out. */
export function readIdentityFile(journalPath: string): StoreIdentity {
  let fields: { readonly identity?: string; readonly copy?: string };
  try {
    fields = { ...(JSON.parse(readFileSync(identityPath(journalPath), "utf8")) as object) };
  } catch {
    return {};
  }
  const { identity, copy } = fields;
  const isValid = (name: string, value: unknown) => rowChecks.properties({ name, value });
  return {
    ...(identity !== undefined && isValid("identity", identity) && { identity }),
    ...(copy !== undefined && isValid("copy", copy) && { copy }),
  };
}

/** Writes the file. */
export function writeIdentityFile(journalPath: string, identity: StoreIdentity): void {
  const path = identityPath(journalPath);
  try {
    writeFileSync(`${path}.new`, `${JSON.stringify(identity)}\n`);
    renameSync(`${path}.new`, path);
  } catch {
    // The journal has these properties too. The next start of a server writes the file.
  }
}
