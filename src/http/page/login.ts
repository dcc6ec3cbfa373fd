/** Login state of the page: asks for the key if the server needs one, and logs out. */
/// <reference lib="dom" />
import { type ApiClient, sourcePath } from "./api.ts";
import type { Dialogs } from "./dialogs.ts";
import { byId, messageOf } from "./dom.ts";
import { displayDateTime, parseNanoseconds } from "./format.ts";

/** Response of `GET /login`. */
interface LoginStatus {
  /** Whether the server needs a key. */
  readonly needed: boolean;
  /** Name of the key; null without a login. */
  readonly name: string | null;
}

/** Interval of the status request, which keeps a login from expiring while the page is open. */
const statusIntervalMs = 3_600_000;

export class PageLogin {
  readonly #dialogs: Dialogs;
  readonly #logout = byId("logout", HTMLButtonElement);

  constructor(dialogs: Dialogs) {
    this.#dialogs = dialogs;
    this.#logout.addEventListener("click", () => void this.#logOut());
    setInterval(() => void this.#loadStatus(), statusIntervalMs);
  }

  /** Asks for the key if the server needs one and there is no login. */
  async start(): Promise<void> {
    const login = await this.#loadStatus();
    if (login?.needed === true && login.name === null) await this.askForKey();
  }

  /**
   * Asks for the key until the server accepts one. If the page has shown what an earlier key allowed,
   * it is loaded anew, so that nothing of it remains.
   */
  async askForKey(): Promise<void> {
    if (!this.#logout.hidden) {
      location.reload();
      return await new Promise(() => {});
    }
    await this.#dialogs.askForKey((key) => this.#submitKey(key));
    await this.#loadStatus();
  }

  /**
   * Shows the MJPEG address of a source. If the server has keys, the address contains a new token.
   * The dialog also offers the address of the stream for Foxglove.
   */
  async showAddress(api: ApiClient, stream: string, source: string): Promise<void> {
    const fallback = `${sourcePath(stream, source)}/latest.mjpeg`;
    await this.#makeAddress(api, { stream, source }, fallback, (path, until) => {
      const address = location.origin + path;
      return this.#dialogs.showAddress({
        title: `${source}, live, for other programs`,
        address,
        note: until === undefined ? "" : `It shows only this source, until ${until}.`,
        example: `cv2.VideoCapture("${address}")\nvlc "${address}"\nffplay "${address}"`,
        others: { "Address for Foxglove": () => void this.#showFoxgloveAddress(api, stream) },
      });
    });
  }

  /** Shows the address of a stream for Foxglove, which contains a new token. */
  async #showFoxgloveAddress(api: ApiClient, stream: string): Promise<void> {
    await this.#makeAddress(api, { stream }, "/foxglove", (path, until) =>
      this.#dialogs.showAddress({
        title: `${stream}, live, in Foxglove`,
        address: location.origin.replace(/^http/, "ws") + path,
        note: until === undefined ? "" : `It shows only this stream, until ${until}.`,
        example: "In Foxglove: Open connection, Foxglove WebSocket",
      }),
    );
  }

  /** Makes a token and shows its address, of which only the path is used. */
  async #makeAddress(
    api: ApiClient,
    scope: { readonly stream: string; readonly source?: string },
    fallback: string,
    show: (path: string, until: string | undefined) => Promise<void>,
  ): Promise<void> {
    try {
      const token = await api.post<{ address: string; expires: string | null }>(
        "/api/tokens",
        scope,
      );
      const expires = parseNanoseconds(token.expires);
      const until = expires === undefined ? undefined : displayDateTime(expires).slice(0, 16);
      // The host that the server reports may differ behind a proxy.
      await show(toPath(token.address, fallback), until === undefined ? until : `${until} UTC`);
    } catch (error) {
      this.#dialogs.showFailure(messageOf(error));
    }
  }

  /** Sends the key to the server. Returns the error message, or undefined if it was accepted. */
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
      // The overview shows that the server is offline. The next API request asks for the key if
      // needed.
      return undefined;
    }
  }

  async #logOut(): Promise<void> {
    try {
      await fetch("/logout", { method: "POST" });
    } finally {
      // Reloads the page, so that nothing shown remains in memory.
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
