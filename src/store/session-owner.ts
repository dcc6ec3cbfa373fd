/**
 * Decides which key a session belongs to: the one that began it, for ever (SPEC section 10). Keys
 * are told apart by id, because a deleted name can be given to another key.
 */
import { FramesError } from "../errors.ts";
import type { SourceInfo } from "../frame.ts";

/** Session of rows that were made from files, because their own rows could not be read. */
export const unknownSession: string = "0".repeat(32);

/** A key, as rows of the journal and lines of a session log name it. */
export interface SessionOwner {
  /** Name of the key; null for a sender without one. */
  readonly key: string | null;
  /** Id of the key; null if only its name is known, as in rows of earlier versions. */
  readonly keyId: string | null;
}

/** Returns the key that a sender has proved. */
export function provedKey({ key, keyId }: Pick<SourceInfo, "key" | "keyId">): SessionOwner {
  return { key: key ?? null, keyId: keyId ?? null };
}

/** Returns whether both are the same key. They are compared by name if an id is unknown. */
export function isSameKey(a: SessionOwner, b: SessionOwner): boolean {
  return a.keyId === null || b.keyId === null ? a.key === b.key : a.keyId === b.keyId;
}

/**
 * Returns whether something was sent with another key. What was sent without a key is not
 * protected, and a server without keys protects nothing.
 */
export function hasOtherKey(owner: SessionOwner, sender: SessionOwner): boolean {
  return owner.key !== null && sender.key !== null && !isSameKey(owner, sender);
}

/**
 * Checks that a sender may continue a session.
 *
 * @param owner key that began it; undefined if the store does not know the session
 * @throws {FramesError} `stolen-session`
 */
export function checkSessionOwner(owner: SessionOwner | undefined, sender: SessionOwner): void {
  if (owner === undefined || isSameKey(owner, sender)) return;
  throw stolenSession();
}

/** Creates the error for a sender that names a session of another key. */
export function stolenSession(): FramesError {
  const hint = "send with that key, or with another --spool";
  const message = `Cannot continue the session: it was started with another key; ${hint}`;
  return new FramesError("stolen-session", message);
}
