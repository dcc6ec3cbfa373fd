/** Who looks: nobody in particular where the server asks for no key, otherwise whoever logged in with one. */
/// <reference lib="dom" />
import { type ApiClient, sourcePath } from "./api.ts";
import type { Dialogs } from "./dialogs.ts";
import { byId } from "./dom.ts";
import { displayDateTime, parseNanoseconds } from "./format.ts";

/** What the server says of a login. */
interface LoginStatus {
  /** Whether it asks for keys at all. */
  readonly needed: boolean;
  /** Name of the key; null without a login. */
  readonly name: string | null;
}

/** Milliseconds between two questions: a login that nobody uses ends after hours. */
const statusIntervalMs = 3_600_000;

export class PageLogin {
  readonly #dialogs: Dialogs;
  readonly #logout = byId("logout", HTMLButtonElement);

  constructor(dialogs: Dialogs) {
    this.#dialogs = dialogs;
    this.#logout.addEventListener("click", () => void this.#logOut());
    setInterval(() => void this.#loadStatus(), statusIntervalMs);
  }

  /** Has the key asked for, if it is needed and was not given yet. */
  async start(): Promise<void> {
    const login = await this.#loadStatus();
    if (login?.needed === true && login.name === null) await this.askForKey();
  }

  /** Asks for the key until there is one that the server takes. */
  async askForKey(): Promise<void> {
    await this.#dialogs.askForKey((key) => this.#submitKey(key));
    await this.#loadStatus();
  }

  /** Shows where other programs find a source: with a token of its own where the server asks for keys. */
  async showAddress(api: ApiClient, stream: string, source: string): Promise<void> {
    try {
      const token = await api.post<{ address: string; expires: string | null }>("/api/tokens", {
        stream,
        source,
      });
      const expires = parseNanoseconds(token.expires);
      await this.#dialogs.showAddress(
        source,
        // Of what the server says only the path counts: how it is reached, this page knows.
        location.origin + toPath(token.address, `${sourcePath(stream, source)}/latest.mjpeg`),
        expires === undefined ? undefined : `${displayDateTime(expires).slice(0, 16)} UTC`,
      );
    } catch (error) {
      this.#dialogs.showFailure(error instanceof Error ? error.message : `${error}`);
    }
  }

  /** Gives the key to the server; what is wrong comes back as words. */
  async #submitKey(key: string): Promise<string | undefined> {
    try {
      const response = await fetch("/login", {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ key }),
      });
      if (response.ok) return undefined;
      const { message } = (await response.json()) as { message?: unknown };
      return typeof message === "string" ? message : `The server answered with ${response.status}`;
    } catch {
      return "The server does not answer";
    }
  }

  async #loadStatus(): Promise<LoginStatus | undefined> {
    try {
      const response = await fetch("/login");
      if (!response.ok) return undefined;
      const login = (await response.json()) as LoginStatus;
      this.#logout.hidden = login.name === null;
      this.#logout.title = login.name === null ? "" : `Logged in with the key ${login.name}`;
      return login;
    } catch {
      // It is away, which is said elsewhere, and is asked again with whatever comes first.
      return undefined;
    }
  }

  async #logOut(): Promise<void> {
    try {
      await fetch("/logout", { method: "POST" });
    } finally {
      // Nothing that was shown stays in the memory of the page.
      location.reload();
    }
  }
}

function toPath(address: string, fallback: string): string {
  try {
    const { pathname, search } = new URL(address, location.href);
    return pathname + search;
  } catch {
    return fallback;
  }
}
