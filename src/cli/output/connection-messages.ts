/** Messages of a transfer in either direction: beside its progress, and about lost connections. */
import type { FramesError } from "../../errors.ts";
import type { LogLevel } from "./log-format.ts";
import type { ProgressDisplay } from "./progress.ts";
import { print, printJson, type Terminal } from "./terminal.ts";

export class ConnectionMessages {
  readonly #terminal: Terminal;
  readonly #progress: ProgressDisplay | undefined;
  readonly #isJson: boolean;
  readonly #isQuiet: boolean;
  /** Message of the last connection error; cleared when a later connection confirms a frame. */
  #lastReason: string | undefined;
  #confirmedAtBreak = 0;

  constructor(
    terminal: Terminal,
    progress: ProgressDisplay | undefined,
    { json, quiet }: { readonly json: boolean; readonly quiet: boolean },
  ) {
    this.#terminal = terminal;
    this.#progress = progress;
    this.#isJson = json;
    this.#isQuiet = quiet;
  }

  /** Whether the connection broke, and no frame was confirmed since. */
  get isDisconnected(): boolean {
    return this.#lastReason !== undefined;
  }

  print(text: string, level?: LogLevel): void {
    if (this.#isQuiet) return;
    if (this.#progress !== undefined) this.#progress.print(text, level);
    else print(this.#terminal, text, level);
  }

  /** Prints a warning, also with `--quiet`. */
  warn(text: string): void {
    if (this.#isQuiet) print(this.#terminal, text, "warning");
    else this.print(text, "warning");
  }

  /**
   * Reports a lost connection. A terminal shows the pause; the message is printed once per reason.
   *
   * @param milliseconds until the next attempt
   * @param confirmed frames so far
   */
  onWaiting(reason: FramesError, milliseconds: number, confirmed: number): void {
    const { code, message } = reason;
    if (this.#isJson) {
      printJson(this.#terminal, { type: "waiting", error: code, message, milliseconds });
    }
    const isNew = message !== this.#lastReason;
    this.#lastReason = message;
    this.#confirmedAtBreak = confirmed;
    this.#progress?.setWaiting(milliseconds);
    const pause = `trying again in ${Math.max(1, Math.round(milliseconds / 1000))} s`;
    if (isNew) this.warn(`${message}; ${pause}`);
  }

  /** Reports the new connection once it confirms a frame, because it may be refused before. */
  onProgress(address: string, confirmed: number): void {
    if (this.#lastReason === undefined || confirmed === this.#confirmedAtBreak) return;
    this.#lastReason = undefined;
    this.print(`Connected to ${address} again`);
  }
}
