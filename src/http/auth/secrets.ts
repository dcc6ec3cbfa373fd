/** Secrets of logins and tokens: 256 random bits as text. The server stores only their digests. */
import { createHash } from "node:crypto";

/** Returns `length` random bytes. */
export type RandomBytes = (length: number) => Uint8Array;

/** Creates a secret in base64url. */
export function createSecret(random: RandomBytes): string {
  return Buffer.from(random(32)).toString("base64url");
}

/** Returns the lookup key of a secret. Lookup time reveals nothing about the secret itself. */
export function digest(secret: string): string {
  return createHash("sha256").update(secret).digest("hex");
}
