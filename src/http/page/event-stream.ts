/** Hears what the server tells once a second, for as long as the page is open. */
/// <reference lib="dom" />
import type { ApiClient, ProblemJson, StateJson } from "./api.ts";

/** Milliseconds without a word after which the server counts as away: it speaks once a second. */
const silenceTimeoutMs = 6_000;

/** Milliseconds until the next attempt; the last stays. */
const reconnectDelaysMs = [500, 1_000, 2_000, 5_000];

export interface EventHandlers {
  onState(state: StateJson): void;
  /** All that are remembered, the oldest first, after each connection. */
  onProblems(problems: readonly ProblemJson[]): void;
  onProblem(problem: ProblemJson): void;
  /** The server answers, or does no longer. */
  onOnlineChange(isOnline: boolean): void;
}

export class EventStream {
  readonly #api: ApiClient;
  readonly #handlers: EventHandlers;
  #source: EventSource | undefined;
  #timer = 0;
  #failures = 0;
  /** Counts what was begun, so that an answer to an earlier attempt is known as such. */
  #attempt = 0;

  constructor(api: ApiClient, handlers: EventHandlers) {
    this.#api = api;
    this.#handlers = handlers;
    // A page that nobody sees holds no connection: browsers have six for all pages of a server.
    document.addEventListener("visibilitychange", () => this.#setActive(!document.hidden));
    window.addEventListener("pagehide", () => this.#setActive(false));
    window.addEventListener("pageshow", ({ persisted }) => {
      if (persisted) this.#setActive(true);
    });
    this.#setActive(!document.hidden);
  }

  #setActive(isActive: boolean): void {
    this.#close();
    if (isActive) void this.#connect();
  }

  #close(): void {
    this.#attempt++;
    clearTimeout(this.#timer);
    this.#source?.close();
    this.#source = undefined;
  }

  async #connect(): Promise<void> {
    const attempt = ++this.#attempt;
    // An EventSource does not say why it was turned away: this asks, and has the key asked for.
    try {
      const { problems } = await this.#api.get<{ problems: ProblemJson[] }>("/api/problems");
      if (attempt !== this.#attempt) return;
      this.#handlers.onProblems(problems);
    } catch {
      if (attempt === this.#attempt) this.#onDisconnected();
      return;
    }
    const source = new EventSource("/events");
    this.#source = source;
    this.#restartTimer();
    source.addEventListener("state", ({ data }: MessageEvent<string>) => {
      this.#failures = 0;
      this.#restartTimer();
      this.#handlers.onOnlineChange(true);
      const state = parseJson<StateJson>(data);
      if (state !== undefined) this.#handlers.onState(state);
    });
    source.addEventListener("problem", ({ data }: MessageEvent<string>) => {
      const problem = parseJson<ProblemJson>(data);
      if (problem !== undefined) this.#handlers.onProblem(problem);
    });
    source.addEventListener("bye", () => this.#onDisconnected());
    source.addEventListener("error", () => this.#onDisconnected());
  }

  #restartTimer(): void {
    clearTimeout(this.#timer);
    this.#timer = window.setTimeout(() => this.#onDisconnected(), silenceTimeoutMs);
  }

  #onDisconnected(): void {
    this.#close();
    this.#handlers.onOnlineChange(false);
    const delayMs = reconnectDelaysMs[Math.min(this.#failures++, reconnectDelaysMs.length - 1)]!;
    this.#timer = window.setTimeout(() => void this.#connect(), delayMs);
  }
}

function parseJson<T>(text: string): T | undefined {
  try {
    return JSON.parse(text) as T;
  } catch {
    return undefined;
  }
}
