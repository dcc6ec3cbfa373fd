/** Reconnects to a server: back-off, choice between several keys, and giving up. */
import type { Key } from "../auth/key.ts";
import type { ClientKeys } from "./client-keys.ts";
import { FramesError, systemCode } from "../errors.ts";
import type { ClientConnectionOptions } from "./client-connection.ts";
import type { Transfer } from "./transfer.ts";
import { monotonicNow } from "../common/clock.ts";
import type { SourceProgress } from "../protocol/progress.ts";

/** Pause before the second connection; doubles without progress, up to the maximum. */
const initialDelayMs = 1000;
const maxDelayMs = 30_000;

/** Maximum pause of live sessions (SPEC section 7), because captured frames go stale meanwhile. */
const maxLiveDelayMs = 500;

/**
 * The third error that a flipped bit may cause is final, without progress (SPEC section 7). So is
 * the third reset of a TLS connection before a server has answered.
 */
const maxSuspectErrors = 3;

/** Errors that concern one key, so the next key may be accepted. */
const keyErrors = new Set(["not-let-in", "key-revoked", "wrong-role", "wrong-stream"]);

/** Errors that only a frames server causes, so they are retried even before the first WELCOME. */
const serverErrors = new Set(["store", "stopping", "full", "damaged"]);

/**
 * Returns whether the peer reset the connection. A frames server does that to a TLS handshake when
 * it has too many connections to say so.
 */
function isReset(error: FramesError): boolean {
  return systemCode(error.cause) === "ECONNRESET";
}

const newSessionMessage =
  "Another key began this session, so a new session sends what is not confirmed yet";

export class Reconnector {
  readonly #transfer: Transfer;
  readonly #clientKeys: ClientKeys;
  /** Index of the key in use; undefined while connections are plain. */
  #keyIndex: number | undefined;
  #keys: readonly Key[] = [];
  #isInterrupted = false;
  #endDelay: () => void = () => {};
  #retries = 0;
  /** Whether a frames server has answered, or none is needed for a retry. */
  #isAccepted: boolean;
  /** Pauses, and errors that a flipped bit may cause, since frames were last settled. */
  #delaysSinceProgress = 0;
  #suspectErrors = 0;
  #lastProgressAt = monotonicNow();
  /** Frames that ended and bytes transferred, at the last call of `updateProgress`. */
  #endedFrames = 0;
  #bytes = 0;

  /** @param canStartOffline whether to retry when no server has been reached yet */
  constructor(transfer: Transfer, keys: ClientKeys, canStartOffline = false) {
    this.#transfer = transfer;
    this.#clientKeys = keys;
    this.#isAccepted = canStartOffline;
    if (keys.use !== "always") return;
    this.#keys = keys.keys();
    this.#keyIndex = 0;
  }

  /** Key to prove on the next connection; undefined for a plain one. */
  get #key(): Key | undefined {
    return this.#keyIndex === undefined ? undefined : this.#keys[this.#keyIndex];
  }

  /** Where and how the next connection is made. */
  get connectionOptions(): Omit<ClientConnectionOptions, "onTick"> {
    const { server } = this.#transfer;
    const connectTimeout = Math.min(server.connectTimeout, Math.max(1, this.#remainingMs));
    return { ...server, connectTimeout, key: this.#key };
  }

  /** Connections after the first. */
  get retries(): number {
    return this.#retries;
  }

  /** Records that a server sent WELCOME, so later errors are retried. */
  onWelcome(): void {
    this.#isAccepted = true;
  }

  /**
   * Restarts the time until the session is given up, if there was progress since the last call. Frames
   * that ended also reset the pauses and the error count.
   *
   * @param isIdle whether the connection has nothing to transfer, which counts as progress
   */
  updateProgress(sources: readonly SourceProgress[], isIdle: boolean): void {
    let endedFrames = 0;
    let bytes = 0;
    for (const source of sources) {
      endedFrames += source.settled + source.lost;
      bytes += source.bytes;
    }
    if (endedFrames > this.#endedFrames) this.#delaysSinceProgress = this.#suspectErrors = 0;
    if (endedFrames > this.#endedFrames || bytes > this.#bytes || isIdle) {
      this.#lastProgressAt = monotonicNow();
    }
    this.#endedFrames = endedFrames;
    this.#bytes = bytes;
  }

  /**
   * @param state what the server does not do, if there was no progress for too long
   * @throws {FramesError} `given-up`
   */
  checkProgress(state: string): void {
    if (this.#remainingMs <= 0) throw this.#giveUpError(new FramesError("timeout", state));
  }

  /** Milliseconds until the session is given up; infinite without a limit. */
  get #remainingMs(): number {
    const { giveUpAfter } = this.#transfer.options;
    if (giveUpAfter === undefined) return Infinity;
    return this.#lastProgressAt + giveUpAfter - monotonicNow();
  }

  /** Returns the `given-up` error; its message names the last error, `reason`. */
  #giveUpError(reason: FramesError): FramesError {
    const seconds = this.#transfer.options.giveUpAfter! / 1000;
    return new FramesError("given-up", `Gave up after ${seconds} s: ${reason.message}`);
  }

  /** Ends a pause at once; a connection that fails from now on is not retried. */
  interrupt(): void {
    this.#isInterrupted = true;
    this.#endDelay();
  }

  /**
   * Connects until one connection completes.
   *
   * @param connect runs one connection, and rejects if it failed
   * @param onBroken called after a failed connection; reports its progress with `updateProgress`
   * @param rules errors that `isLocalError` accepts are not retried; `isLive` shortens the pauses;
   * `onStolenSession` begins a new session
   * @throws the error that ends the session
   */
  async run<T>(
    connect: () => Promise<T>,
    onBroken: () => void,
    rules: {
      isLocalError(error: unknown): boolean;
      onStolenSession?(): void;
      readonly isLive: boolean;
    },
  ): Promise<T> {
    for (;;) {
      const previousProgressAt = this.#lastProgressAt;
      try {
        return await connect();
      } catch (error) {
        onBroken();
        if (this.#useNextKey(error)) continue;
        if (rules.isLocalError(error)) throw error;
        let reason = this.#checkRetry(error);
        if (reason.code === "stolen-session") {
          rules.onStolenSession?.();
          reason = new FramesError("stolen-session", newSessionMessage);
        }
        // This connection settled no frame since the last pause, so it only resent bytes.
        if (this.#delaysSinceProgress > 0) this.#lastProgressAt = previousProgressAt;
        await this.#delay(reason, rules.isLive);
      }
      this.#retries++;
    }
  }

  /** Selects the next key after an error about keys; returns false if there is none. */
  #useNextKey(error: unknown): boolean {
    const { use, keys } = this.#clientKeys;
    if (!(error instanceof FramesError) || this.#isInterrupted) return false;
    const isKeyRequired =
      error.code === "no-key" && use === "if-asked" && this.#keyIndex === undefined;
    if (!isKeyRequired && !keyErrors.has(error.code)) return false;
    // Read only now, so that an unreadable key file cannot fail a session that needs no key.
    if (isKeyRequired) this.#keys = keys();
    const next = isKeyRequired ? 0 : (this.#keyIndex ?? this.#keys.length) + 1;
    if (next >= this.#keys.length) return false;
    this.#keyIndex = next;
    return true;
  }

  /**
   * Returns `error` if another connection may succeed.
   *
   * @throws {FramesError} `interrupted`, or `error` itself if it ends the session
   */
  #checkRetry(error: unknown): FramesError {
    if (!(error instanceof FramesError)) throw error;
    const { code, retry } = error;
    if (this.#isInterrupted && retry !== undefined) {
      throw new FramesError("interrupted", `Interrupted: ${error.message}`);
    }
    if (serverErrors.has(code)) this.#isAccepted = true;
    const isUnexplained = !this.#isAccepted && this.#key !== undefined && isReset(error);
    if (retry === undefined || !(this.#isAccepted || isUnexplained)) throw error;
    const isSuspect = isUnexplained || retry === "three-times";
    if (isSuspect && ++this.#suspectErrors >= maxSuspectErrors) throw error;
    return error;
  }

  /** Pauses, longer each time, with jitter so that clients do not reconnect all at once. */
  async #delay(reason: FramesError, isLive: boolean): Promise<void> {
    const remainingMs = this.#remainingMs;
    if (remainingMs <= 0) throw this.#giveUpError(reason);
    const maxMs = isLive ? maxLiveDelayMs : maxDelayMs;
    const delayMs = Math.min(initialDelayMs * 2 ** this.#delaysSinceProgress++, maxMs);
    const jitteredMs = Math.min(delayMs * (0.75 + Math.random() / 4), remainingMs);
    this.#transfer.emit({ type: "waiting", reason, milliseconds: jitteredMs });
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#endDelay = resolve;
    const timer = setTimeout(resolve, jitteredMs);
    await promise;
    clearTimeout(timer);
    if (this.#isInterrupted) {
      const { peer } = this.#transfer;
      throw new FramesError("interrupted", `Interrupted while there was no connection to ${peer}`);
    }
    if (this.#remainingMs <= 0) throw this.#giveUpError(reason);
  }
}
