/** Runs the transfer of `frames send` or `frames receive`, with signals of the process. */
import { FramesError } from "../errors.ts";
import type { TransferOutput } from "./output/transfer-output.ts";

/** Aborted when the user stops a transfer: gracefully first, at once by a second signal. */
export interface StopSignals {
  readonly graceful: AbortSignal;
  readonly immediate: AbortSignal;
}

/** Signals of the process as a transfer sees them; `main.ts` installs the handlers. */
export interface TransferSignals {
  /** Installs the handlers that stop. Until it is called, signals end the process. */
  readonly stopOnSignal: () => StopSignals;
  /** Registers a function that is called for each SIGUSR1; on Windows once a minute. */
  readonly reportOnSignal: (printReport: () => void) => void;
}

/**
 * Runs a transfer until it ends, or a second signal stops it at once.
 *
 * @param transfer gets the signal that stops it gracefully
 * @throws {FramesError} `interrupted`, or what `transfer` throws
 */
export async function runTransfer<T>(
  output: TransferOutput,
  { stopOnSignal, reportOnSignal }: TransferSignals,
  transfer: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const { graceful, immediate } = stopOnSignal();
  reportOnSignal(() => output.printReport());
  graceful.addEventListener("abort", () => output.onStopping());
  const killed = Promise.withResolvers<never>();
  immediate.addEventListener("abort", () => killed.reject(new FramesError("interrupted")));
  return await Promise.race([transfer(graceful), killed.promise]);
}
