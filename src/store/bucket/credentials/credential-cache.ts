/**
 * Keeps the credentials for a bucket and renews them before they end. Requests use the old ones
 * while new ones are loaded, so that senders do not wait. What a provider says about the end only
 * decides when to renew, because its clock or the clock of this machine may be wrong. The engine
 * decides whether credentials still count.
 */
import { asFramesError, type FramesError } from "../../../errors.ts";
import type { CredentialProvider, Credentials } from "./credentials.ts";

/** Clocks of a cache, in milliseconds. */
export interface CredentialClock {
  /** Wall clock since 1970. */
  readonly wall: () => number;
  /** Clock for durations. Changes of the system time do not affect it. */
  readonly monotonic: () => number;
}

const systemClock: CredentialClock = { wall: Date.now, monotonic: () => performance.now() };

/** Time before the end at which credentials are renewed; half of a shorter life. */
const renewalMarginMs = 10 * 60_000;

/** Credentials are renewed at least this often, also if their end is far away or not known. */
const maxAgeMs = 60 * 60_000;

/** Shortest time between a load and the next renewal. */
const minRenewalMs = 30_000;

/** Shortest time between two loads because the engine refused the credentials. */
const minReplacementMs = 5000;

export class CredentialCache {
  readonly #provider: CredentialProvider;
  readonly #clock: CredentialClock;
  #credentials: Credentials | undefined;
  /** Time of the next renewal, by the monotonic clock. */
  #renewAt = 0;
  /** Times of the last load, and of the last change of the keys, by the monotonic clock. */
  #loadedAt = -Infinity;
  #changedAt = -Infinity;
  #loading: Promise<Credentials> | undefined;
  #failure: FramesError | undefined;

  constructor(provider: CredentialProvider, clock = systemClock) {
    this.#provider = provider;
    this.#clock = clock;
  }

  /**
   * Returns the credentials for the next request. Waits only for the first ones, or if they have
   * ended and new ones are being loaded.
   *
   * @throws {FramesError} `usage` or `store` if there are none yet
   */
  async get(): Promise<Credentials> {
    const current = this.#credentials;
    if (current === undefined) return this.#load();
    const now = this.#clock.monotonic();
    const hasEnded = this.#clock.wall() >= (current.expiresAt ?? Infinity);
    // While a machine sleeps only the wall clock goes on.
    const isOverdue = hasEnded && now - this.#loadedAt >= minRenewalMs;
    if (now < this.#renewAt && !isOverdue) return current;
    // The cache keeps the failure. The old credentials may still count.
    const renewal = this.#load().catch(() => current);
    return hasEnded ? renewal : current;
  }

  /**
   * Loads credentials because the engine refused the current ones. Returns whether a retry may use
   * others.
   */
  async replace(): Promise<boolean> {
    const now = this.#clock.monotonic();
    if (this.#loading === undefined) {
      if (now - this.#changedAt < minReplacementMs) return true;
      if (now - this.#loadedAt < minReplacementMs) return false;
    }
    await this.#load().catch(() => {});
    return this.#changedAt >= now;
  }

  /** Returns what to do about credentials that the engine refused with an error code. */
  remedy(code: string): string {
    const failure = this.#failure?.message;
    if (failure !== undefined) return failure.replace(/^C/, "c");
    return this.#provider.remedies?.[code] ?? this.#provider.hint;
  }

  #load(): Promise<Credentials> {
    return (this.#loading ??= this.#loadNow().finally(() => (this.#loading = undefined)));
  }

  async #loadNow(): Promise<Credentials> {
    const { monotonic, wall } = this.#clock;
    this.#loadedAt = monotonic();
    try {
      const loaded = await this.#provider.load();
      this.#failure = undefined;
      const previous = this.#credentials;
      if (previous !== undefined && !areSame(previous, loaded)) this.#changedAt = monotonic();
      this.#credentials = loaded;
      this.#renewAt = monotonic() + renewalDelay(loaded, wall());
      return loaded;
    } catch (error) {
      this.#failure = asFramesError(error, "store");
      this.#renewAt = monotonic() + minRenewalMs;
      throw this.#failure;
    }
  }
}

/** Returns the time from now to the next renewal, in milliseconds. */
function renewalDelay({ expiresAt = Infinity }: Credentials, now: number): number {
  const life = expiresAt - now;
  const untilMargin = life - Math.min(renewalMarginMs, life / 2);
  return Math.max(minRenewalMs, Math.min(untilMargin, maxAgeMs));
}

function areSame(one: Credentials, other: Credentials): boolean {
  return (
    one.accessKeyId === other.accessKeyId &&
    one.secretAccessKey === other.secretAccessKey &&
    one.sessionToken === other.sessionToken
  );
}
