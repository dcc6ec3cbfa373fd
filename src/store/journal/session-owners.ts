/** The table `sessions`: the key that began each session. Its rows are never deleted. */
import type { Database } from "bun:sqlite";
import type { SessionOwner } from "../session-owner.ts";

export class SessionOwners {
  readonly #find;
  readonly #set;

  constructor(database: Database) {
    this.#find = database.query<SessionOwner, [string]>(
      "SELECT key, key_id AS keyId FROM sessions WHERE session = ?",
    );
    this.#set = database.query<null, [string, string | null, string | null]>(
      "INSERT OR REPLACE INTO sessions (session, key, key_id) VALUES (?, ?, ?)",
    );
  }

  /** Returns the key that began a session; undefined if the session is not known. */
  find(session: string): SessionOwner | undefined {
    return this.#find.get(session) ?? undefined;
  }

  /**
   * Returns whether a sender begins the session, or adds the id of a key of which only the name is
   * known.
   *
   * @param sender key that may continue the session
   */
  isNews(session: string, sender: SessionOwner): boolean {
    const owner = this.find(session);
    return owner === undefined || (owner.keyId === null && sender.keyId !== null);
  }

  /** Records the key that began a session, in place of what was recorded before. */
  set(session: string, owner: SessionOwner): void {
    this.#set.run(session, owner.key, owner.keyId);
  }
}
