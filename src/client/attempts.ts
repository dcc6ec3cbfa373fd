/** How often and how patiently a server is connected to, and with which of several keys. */
import type { Key } from "../auth/key.ts";
import { FramesError } from "../errors.ts";
import { type Address, formatAddress } from "../net/address.ts";
import { steadyNow } from "../net/connection.ts";

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
export interface AttemptOptions {
  /** How long nothing may be settled before it is given up; without it, for ever. */
  readonly giveUpAfter: number | undefined;
  readonly keys: ClientKeys;
  /** Whether a server may be away from the beginning on. */
  readonly isPatient: boolean;
  /** There is no connection, for this reason; the next try is so many milliseconds away. */
  readonly waiting: (reason: FramesError, milliseconds: number) => void;
}

/** Milliseconds before the second try, which double up to the most. */
const firstPause = 1000;
const longestPause = 30_000;

/** What is captured meanwhile grows old: whoever is live looks for the server all the time. */
const livePause = 500;

/** Errors that may come of a flipped byte end it when they come so often without progress. */
const mostDoubts = 3;

/** What a server says of one key, and may not say of the next. */
const keyFails = new Set(["not-let-in", "key-revoked", "wrong-role", "wrong-stream"]);

/** Only a frames server says this, or whatever lies on the way to one does it. */
const saidByServers = new Set(["store", "stopping", "full", "damaged"]);

export class Attempts {
  readonly #address: Address;
  readonly #options: AttemptOptions;
  /** The key that is in use. */
  #key: number | undefined;
  #keys: readonly Key[] = [];
  #isInterrupted = false;
  #endPause: () => void = () => {};
  #retries = 0;
  /** Whether a server has taken it up. */
  #isWelcomed: boolean;
  /** Pauses, and errors that a flipped byte may have caused, since anything was settled. */
  #pauses = 0;
  #doubts = 0;
  #progressAt = steadyNow();

  constructor(address: Address, options: AttemptOptions) {
    this.#address = address;
    this.#options = options;
    this.#isWelcomed = options.isPatient;
    if (options.keys.use !== "always") return;
    this.#keys = options.keys.keys();
    this.#key = 0;
  }

  /** What is proved to the server next; without it the connection is plain. */
  get key(): Key | undefined {
    return this.#key === undefined ? undefined : this.#keys[this.#key];
  }

  /** Connections after the first. */
  get retries(): number {
    return this.#retries;
  }

  get isInterrupted(): boolean {
    return this.#isInterrupted;
  }

  /** A server has taken it up. */
  welcomed(): void {
    this.#isWelcomed = true;
  }

  /** Something came about. `isSettled` if it will not have to be done again. */
  progressed(isSettled: boolean): void {
    if (isSettled) this.#pauses = this.#doubts = 0;
    this.#progressAt = steadyNow();
  }

  /** Milliseconds until it is given up. */
  get patience(): number {
    const { giveUpAfter } = this.#options;
    if (giveUpAfter === undefined) return Infinity;
    return this.#progressAt + giveUpAfter - steadyNow();
  }

  /** What is said when patience is at an end. */
  givenUp(reason: FramesError): FramesError {
    const seconds = this.#options.giveUpAfter! / 1000;
    return new FramesError("given-up", `Gave up after ${seconds} s: ${reason.message}`);
  }

  /** Connects no more. */
  interrupt(): void {
    this.#isInterrupted = true;
    this.#endPause();
  }

  /**
   * Connects until it is done.
   *
   * @param connect is done with the first connection on which nothing breaks
   * @param noted after a connection that broke: has called `progressed`, if anything came about on it
   * @throws what ends it
   */
  async run<T>(
    connect: () => Promise<T>,
    noted: () => void,
    judge: { isOurs(error: unknown): boolean; readonly isLive: boolean },
  ): Promise<T> {
    for (;;) {
      const progressAt = this.#progressAt;
      try {
        return await connect();
      } catch (error) {
        noted();
        if (this.#nextKey(error)) continue;
        if (judge.isOurs(error)) throw error;
        const reason = this.#mayRetry(error);
        // What was done a second time without being confirmed was done in vain.
        if (this.#pauses > 0) this.#progressAt = progressAt;
        await this.#pause(reason, judge.isLive);
      }
      this.#retries++;
    }
  }

  /** Whether there is another key to try, now that the server did not take the last one, or asked for one. */
  #nextKey(error: unknown): boolean {
    const { use, keys } = this.#options.keys;
    if (!(error instanceof FramesError) || this.#isInterrupted) return false;
    const asked = error.code === "no-key" && use === "if-asked" && this.#key === undefined;
    if (!asked && !keyFails.has(error.code)) return false;
    // Keys that nobody asked for are no reason to fail, so they are read only now.
    if (asked) this.#keys = keys();
    const next = asked ? 0 : (this.#key ?? this.#keys.length) + 1;
    if (next >= this.#keys.length) return false;
    this.#key = next;
    return true;
  }

  /**
   * Whether it is worth while to connect again.
   *
   * @throws what ends it
   */
  #mayRetry(error: unknown): FramesError {
    if (!(error instanceof FramesError)) throw error;
    const { code, retry } = error;
    if (this.#isInterrupted && retry !== undefined) {
      throw new FramesError("interrupted", `Interrupted: ${error.message}`);
    }
    if (retry === undefined || !(this.#isWelcomed || saidByServers.has(code))) throw error;
    if (retry === "thrice" && ++this.#doubts >= mostDoubts) throw error;
    return error;
  }

  /** Waits before the next try, each time longer, and not for as long as all others who wait. */
  async #pause(reason: FramesError, isLive: boolean): Promise<void> {
    const { patience } = this;
    if (patience <= 0) throw this.givenUp(reason);
    const longest = isLive ? livePause : longestPause;
    const pause = Math.min(firstPause * 2 ** this.#pauses++, longest);
    const jittered = Math.min(pause * (0.75 + Math.random() / 4), patience);
    this.#options.waiting(reason, jittered);
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#endPause = resolve;
    const timer = setTimeout(resolve, jittered);
    await promise;
    clearTimeout(timer);
    if (this.#isInterrupted) {
      const where = formatAddress(this.#address);
      throw new FramesError("interrupted", `Interrupted while there was no connection to ${where}`);
    }
    if (this.patience <= 0) throw this.givenUp(reason);
  }
}
