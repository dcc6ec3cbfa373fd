/** How often and how patiently a server is connected to, and with which of several keys. */
import type { Key } from "../auth/key.ts";
import { FramesError } from "../errors.ts";
import { type Address, formatAddress } from "../net/address.ts";
import { monotonicNow } from "../common/clock.ts";

/** How a server is spoken to: in the clear, with one of these keys, or in the clear until it asks for one. */
export interface ClientKeys {
  readonly use: "never" | "always" | "if-asked";
  /**
   * In the order in which they are tried.
   *
   * @throws {FramesError} `usage` or `missing` if they cannot be read
   */
  keys(): readonly Key[];
}

/** Times are in milliseconds. */
export interface ReconnectOptions {
  /** How long nothing may be settled before it is given up; without it, for ever. */
  readonly giveUpAfter: number | undefined;
  readonly keys: ClientKeys;
  /** Whether a server may be away from the beginning on. */
  readonly canStartOffline: boolean;
  /** There is no connection, for this reason; the next try is so many milliseconds away. */
  readonly onWaiting: (reason: FramesError, milliseconds: number) => void;
}

/** Milliseconds before the second try, which double up to the most. */
const initialDelayMs = 1000;
const maxDelayMs = 30_000;

/** What is captured meanwhile grows old: whoever is live looks for the server all the time. */
const maxLiveDelayMs = 500;

/** Errors that may come of a flipped byte end it when they come so often without progress. */
const maxSuspectErrors = 3;

/** What a server says of one key, and may not say of the next. */
const keyErrors = new Set(["not-let-in", "key-revoked", "wrong-role", "wrong-stream"]);

/** Only a frames server says this, or whatever lies on the way to one does it. */
const serverErrors = new Set(["store", "stopping", "full", "damaged"]);

export class Reconnector {
  readonly #address: Address;
  readonly #options: ReconnectOptions;
  /** The key that is in use. */
  #keyIndex: number | undefined;
  #keys: readonly Key[] = [];
  #isInterrupted = false;
  #endDelay: () => void = () => {};
  #retries = 0;
  /** Whether a server has taken it up. */
  #isAccepted: boolean;
  /** Pauses, and errors that a flipped byte may have caused, since anything was settled. */
  #delaysSinceProgress = 0;
  #suspectErrors = 0;
  #lastProgressAt = monotonicNow();

  constructor(address: Address, options: ReconnectOptions) {
    this.#address = address;
    this.#options = options;
    this.#isAccepted = options.canStartOffline;
    if (options.keys.use !== "always") return;
    this.#keys = options.keys.keys();
    this.#keyIndex = 0;
  }

  /** What is proved to the server next; without it the connection is plain. */
  get key(): Key | undefined {
    return this.#keyIndex === undefined ? undefined : this.#keys[this.#keyIndex];
  }

  /** Connections after the first. */
  get retries(): number {
    return this.#retries;
  }

  get isInterrupted(): boolean {
    return this.#isInterrupted;
  }

  /** A server has taken it up. */
  onWelcome(): void {
    this.#isAccepted = true;
  }

  /** Something came about. `isSettled` if it will not have to be done again. */
  onProgress(isFinal: boolean): void {
    if (isFinal) this.#delaysSinceProgress = this.#suspectErrors = 0;
    this.#lastProgressAt = monotonicNow();
  }

  /** Milliseconds until it is given up. */
  get remainingMs(): number {
    const { giveUpAfter } = this.#options;
    if (giveUpAfter === undefined) return Infinity;
    return this.#lastProgressAt + giveUpAfter - monotonicNow();
  }

  /** What is said when patience is at an end. */
  giveUpError(reason: FramesError): FramesError {
    const seconds = this.#options.giveUpAfter! / 1000;
    return new FramesError("given-up", `Gave up after ${seconds} s: ${reason.message}`);
  }

  /** Connects no more. */
  interrupt(): void {
    this.#isInterrupted = true;
    this.#endDelay();
  }

  /**
   * Connects until it is done.
   *
   * @param connect is done with the first connection on which nothing breaks
   * @param onBroken after a connection that broke: has called `progressed`, if anything came about on it
   * @throws what ends it
   */
  async run<T>(
    connect: () => Promise<T>,
    onBroken: () => void,
    rules: { isLocalError(error: unknown): boolean; readonly isLive: boolean },
  ): Promise<T> {
    for (;;) {
      const previousProgressAt = this.#lastProgressAt;
      try {
        return await connect();
      } catch (error) {
        onBroken();
        if (this.#useNextKey(error)) continue;
        if (rules.isLocalError(error)) throw error;
        const reason = this.#checkRetry(error);
        // What was done a second time without being confirmed was done in vain.
        if (this.#delaysSinceProgress > 0) this.#lastProgressAt = previousProgressAt;
        await this.#delay(reason, rules.isLive);
      }
      this.#retries++;
    }
  }

  /** Whether there is another key to try, now that the server did not take the last one, or asked for one. */
  #useNextKey(error: unknown): boolean {
    const { use, keys } = this.#options.keys;
    if (!(error instanceof FramesError) || this.#isInterrupted) return false;
    const isKeyRequired =
      error.code === "no-key" && use === "if-asked" && this.#keyIndex === undefined;
    if (!isKeyRequired && !keyErrors.has(error.code)) return false;
    // Keys that nobody asked for are no reason to fail, so they are read only now.
    if (isKeyRequired) this.#keys = keys();
    const next = isKeyRequired ? 0 : (this.#keyIndex ?? this.#keys.length) + 1;
    if (next >= this.#keys.length) return false;
    this.#keyIndex = next;
    return true;
  }

  /**
   * Whether it is worth while to connect again.
   *
   * @throws what ends it
   */
  #checkRetry(error: unknown): FramesError {
    if (!(error instanceof FramesError)) throw error;
    const { code, retry } = error;
    if (this.#isInterrupted && retry !== undefined) {
      throw new FramesError("interrupted", `Interrupted: ${error.message}`);
    }
    if (retry === undefined || !(this.#isAccepted || serverErrors.has(code))) throw error;
    if (retry === "three-times" && ++this.#suspectErrors >= maxSuspectErrors) throw error;
    return error;
  }

  /** Waits before the next try, each time longer, and not for as long as all others who wait. */
  async #delay(reason: FramesError, isLive: boolean): Promise<void> {
    const { remainingMs } = this;
    if (remainingMs <= 0) throw this.giveUpError(reason);
    const maxMs = isLive ? maxLiveDelayMs : maxDelayMs;
    const delayMs = Math.min(initialDelayMs * 2 ** this.#delaysSinceProgress++, maxMs);
    const jitteredMs = Math.min(delayMs * (0.75 + Math.random() / 4), remainingMs);
    this.#options.onWaiting(reason, jitteredMs);
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#endDelay = resolve;
    const timer = setTimeout(resolve, jitteredMs);
    await promise;
    clearTimeout(timer);
    if (this.#isInterrupted) {
      const peer = formatAddress(this.#address);
      throw new FramesError("interrupted", `Interrupted while there was no connection to ${peer}`);
    }
    if (this.remainingMs <= 0) throw this.giveUpError(reason);
  }
}
