/**
 * Secrets that the server gives out: cookies of browser logins, and tokens. They are in memory only,
 * and end at their time, with their key, or with the server.
 */
import { randomBytes } from "node:crypto";
import type { HttpKey } from "./access.ts";

/** Access that a secret gives. Times are in milliseconds since 1970. */
export interface Grant {
  readonly key: HttpKey;
  readonly createdAt: number;
  expiresAt: number;
  /** Aborted when the grant ends. */
  readonly controller: AbortController;
}

export class SecretStore<T extends Grant> {
  readonly #prefix: string;
  /**
   * Grants by the digest of their secret. Neither server memory nor the time of a lookup reveals a
   * secret.
   */
  readonly #grants = new Map<string, T>();

  /** @param prefix begins every secret */
  constructor(prefix = "") {
    this.#prefix = prefix;
  }

  /** Adds a grant. Returns its secret of 256 random bits, which cannot be read again. */
  add(grant: T): string {
    const secret = this.#prefix + randomBytes(32).toString("base64url");
    this.#grants.set(digest(secret), grant);
    return secret;
  }

  /** Returns the grant of a secret. Undefined if it is unknown, expired, or its key not valid. */
  find(secret: string, now: number): T | undefined {
    const grant = this.#grants.get(digest(secret));
    return grant !== undefined && isValid(grant, now) ? grant : undefined;
  }

  /** Returns the grants of a key that have not expired, oldest first. */
  ofKey({ id }: HttpKey, now: number): T[] {
    return [...this.#grants.values()].filter(
      ({ key, expiresAt }) => key.id === id && now < expiresAt,
    );
  }

  /** Ends a grant. */
  remove(grant: T): void {
    for (const [hash, one] of this.#grants) if (one === grant) this.#end(hash, grant);
  }

  /** Ends grants that have expired, or whose key is not valid any more. */
  sweepExpired(now: number): void {
    for (const [hash, grant] of this.#grants) if (!isValid(grant, now)) this.#end(hash, grant);
  }

  #end(hash: string, { controller }: T): void {
    this.#grants.delete(hash);
    controller.abort();
  }
}

function isValid({ key, expiresAt }: Grant, now: number): boolean {
  return now < expiresAt && key.isValid();
}

function digest(secret: string): string {
  return new Bun.CryptoHasher("sha256").update(secret).digest("hex");
}
