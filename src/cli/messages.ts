/** Messages of a delivery, either way, for people: beside its progress, and when its connection breaks. */
import type { FramesError } from "../errors.ts";
import type { Level } from "./lines.ts";
import type { Progress } from "./progress.ts";
import { say, sayJson, type Terminal } from "./terminal.ts";

export class Messages {
  readonly #terminal: Terminal;
  readonly #progress: Progress | undefined;
  readonly #json: boolean;
  readonly #quiet: boolean;
  /** Why there was no connection, until the next has brought something, and what was confirmed then. */
  #reason: string | undefined;
  #confirmed = 0;

  constructor(
    terminal: Terminal,
    progress: Progress | undefined,
    { json, quiet }: { readonly json: boolean; readonly quiet: boolean },
  ) {
    this.#terminal = terminal;
    this.#progress = progress;
    this.#json = json;
    this.#quiet = quiet;
  }

  /** Whether there was no connection, and the next has brought nothing yet. */
  get isBroken(): boolean {
    return this.#reason !== undefined;
  }

  say(text: string, level?: Level): void {
    if (this.#quiet) return;
    if (this.#progress !== undefined) this.#progress.say(text, level);
    else say(this.#terminal, text, level);
  }

  /** Says what even those should see who asked for quiet. */
  warn(text: string): void {
    if (this.#quiet) say(this.#terminal, text, "warning");
    else this.say(text, "warning");
  }

  /**
   * There is no connection: on a terminal this is seen anyway, elsewhere each new reason is said.
   *
   * @param confirmed frames so far
   */
  waiting(reason: FramesError, milliseconds: number, confirmed: number): void {
    const { code, message } = reason;
    if (this.#json) {
      sayJson(this.#terminal, { type: "waiting", error: code, message, milliseconds });
    }
    const isNew = message !== this.#reason;
    this.#reason = message;
    this.#confirmed = confirmed;
    this.#progress?.waiting(milliseconds);
    const pause = `trying again in ${Math.max(1, Math.round(milliseconds / 1000))} s`;
    if (isNew) this.warn(`${message}; ${pause}`);
  }

  /** A connection that is refused again at once is not worth a word; one that brings something is. */
  goesOn(address: string, confirmed: number): void {
    if (this.#reason === undefined || confirmed === this.#confirmed) return;
    this.#reason = undefined;
    this.say(`Connected to ${address} again`);
  }
}
