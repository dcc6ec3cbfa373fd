/** Who looks: nobody in particular where the server asks for no key, otherwise whoever logged in with one. */
/// <reference lib="dom" />
import { type Api, sourcePath } from "./api.ts";
import type { Dialogs } from "./dialogs.ts";
import { byId } from "./dom.ts";
import { moment, nanoseconds } from "./format.ts";

/** What the server says of a login. */
interface Login {
  /** Whether it asks for keys at all. */
  readonly needed: boolean;
  /** Name of the key; null without a login. */
  readonly name: string | null;
}

/** Milliseconds between two questions: a login that nobody uses ends after hours. */
const pace = 3_600_000;

export class Session {
  readonly #dialogs: Dialogs;
  readonly #logout = byId("logout", HTMLButtonElement);

  constructor(dialogs: Dialogs) {
    this.#dialogs = dialogs;
    this.#logout.addEventListener("click", () => void this.#leave());
    setInterval(() => void this.#look(), pace);
  }

  /** Has the key asked for, if it is needed and was not given yet. */
  async begin(): Promise<void> {
    const login = await this.#look();
    if (login?.needed === true && login.name === null) await this.askForKey();
  }

  /** Asks for the key until there is one that the server takes. */
  async askForKey(): Promise<void> {
    await this.#dialogs.askForKey((key) => this.#enter(key));
    await this.#look();
  }

  /** Shows where other programs find a source: with a token of its own where the server asks for keys. */
  async showAddress(api: Api, stream: string, source: string): Promise<void> {
    try {
      const made = await api.post<{ address: string; expires: string | null }>("/api/tokens", {
        stream,
        source,
      });
      const ends = nanoseconds(made.expires);
      await this.#dialogs.showAddress(
        source,
        // Of what the server says only the path counts: how it is reached, this page knows.
        location.origin + pathOf(made.address, `${sourcePath(stream, source)}/latest.mjpeg`),
        ends === undefined ? undefined : `${moment(ends).slice(0, 16)} UTC`,
      );
    } catch (error) {
      this.#dialogs.showFailure(error instanceof Error ? error.message : `${error}`);
    }
  }

  /** Gives the key to the server; what is wrong comes back as words. */
  async #enter(key: string): Promise<string | undefined> {
    try {
      const answer = await fetch("/login", {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ key }),
      });
      if (answer.ok) return undefined;
      const { message } = (await answer.json()) as { message?: unknown };
      return typeof message === "string" ? message : `The server answered with ${answer.status}`;
    } catch {
      return "The server does not answer";
    }
  }

  async #look(): Promise<Login | undefined> {
    try {
      const answer = await fetch("/login");
      if (!answer.ok) return undefined;
      const login = (await answer.json()) as Login;
      this.#logout.hidden = login.name === null;
      this.#logout.title = login.name === null ? "" : `Logged in with the key ${login.name}`;
      return login;
    } catch {
      // It is away, which is said elsewhere, and is asked again with whatever comes first.
      return undefined;
    }
  }

  async #leave(): Promise<void> {
    try {
      await fetch("/logout", { method: "POST" });
    } finally {
      // Nothing that was shown stays in the memory of the page.
      location.reload();
    }
  }
}

function pathOf(address: string, otherwise: string): string {
  try {
    const { pathname, search } = new URL(address, location.href);
    return pathname + search;
  } catch {
    return otherwise;
  }
}
