/** Signals of the process as a transfer sees them; `main.ts` installs the handlers. */

/** Aborted when the user stops a transfer: gracefully first, at once by a second signal. */
export interface StopSignals {
  readonly graceful: AbortSignal;
  readonly immediate: AbortSignal;
}

/** Registers `printReport`, which is called for each SIGUSR1; on Windows once a minute. */
export type OnReportRequest = (printReport: () => void) => void;
