/** Messages of a delivery, either way, for people: beside its progress, and when its connection breaks. */
import type { FramesError } from "../../errors.ts";
import type { LogLevel } from "./log-format.ts";
import type { ProgressDisplay } from "./progress.ts";
import { print, printJson, type Terminal } from "./terminal.ts";

export class ConnectionMessages {
  readonly #terminal: Terminal;
  readonly #progress: ProgressDisplay | undefined;
  readonly #isJson: boolean;
  readonly #isQuiet: boolean;
  /** Why there was no connection, until the next has brought something, and what was confirmed then. */
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

  /** Whether there was no connection, and the next has brought nothing yet. */
  get isDisconnected(): boolean {
    return this.#lastReason !== undefined;
  }

  print(text: string, level?: LogLevel): void {
    if (this.#isQuiet) return;
    if (this.#progress !== undefined) this.#progress.print(text, level);
    else print(this.#terminal, text, level);
  }

  /** Says what even those should see who asked for quiet. */
  warn(text: string): void {
    if (this.#isQuiet) print(this.#terminal, text, "warning");
    else this.print(text, "warning");
  }

  /**
   * There is no connection: on a terminal this is seen anyway, elsewhere each new reason is said.
   *
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

  /** A connection that is refused again at once is not worth a word; one that brings something is. */
  onProgress(address: string, confirmed: number): void {
    if (this.#lastReason === undefined || confirmed === this.#confirmedAtBreak) return;
    this.#lastReason = undefined;
    this.print(`Connected to ${address} again`);
  }
}
