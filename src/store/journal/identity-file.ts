/**
 * File `.frames/identity.json`, beside the journal. It repeats the properties by which copies of a
 * store recognize it, so that a journal that cannot be read keeps them when it is rebuilt.
 */
import { writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { readRegularFile } from "../../common/read-file.ts";
import { replaceFile } from "../../common/replace-file.ts";
import { rowChecks } from "./row-check.ts";

/** Properties that the file repeats. Values are the texts of the table `properties`. */
export interface StoreIdentity {
  readonly identity?: string;
  readonly copy?: string;
}

const maxIdentityBytes = 64 << 10;

function identityPath(journalPath: string): string {
  return join(dirname(journalPath), "identity.json");
}

/** Returns the contents of the file. Properties that are absent or damaged are left out. */
export function readIdentityFile(journalPath: string): StoreIdentity {
  let fields: { readonly identity?: string; readonly copy?: string };
  try {
    const bytes = readRegularFile(identityPath(journalPath), maxIdentityBytes);
    fields = { ...(JSON.parse(String(bytes)) as object) };
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
    replaceFile(path, 0o644, (file) => writeFileSync(file, `${JSON.stringify(identity)}\n`));
  } catch {
    // The journal has these properties too. The next start of a server writes the file.
  }
}
