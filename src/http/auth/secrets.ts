/** Secrets that the viewer hands out: 256 random bits as text. It keeps their digests alone. */
import { createHash } from "node:crypto";

/** So many random bytes. */
export type RandomBytes = (length: number) => Uint8Array;

/** A new one, in base64url. */
export function createSecret(random: RandomBytes): string {
  return Buffer.from(random(32)).toString("base64url");
}

/** By what a secret is found: how long that takes says nothing about the secret itself. */
export function digest(secret: string): string {
  return createHash("sha256").update(secret).digest("hex");
}
