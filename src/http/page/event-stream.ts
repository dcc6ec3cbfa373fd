/** Receives `/events` and reconnects, while the page is visible. */
/// <reference lib="dom" />
import type { ApiClient, ProblemJson, StateJson } from "./api.ts";

/** Time without an event after which the server counts as offline. It sends one every second. */
const silenceTimeoutMs = 6_000;

/** Delays before successive reconnects; the last one repeats. */
const reconnectDelaysMs = [500, 1_000, 2_000, 5_000];

export interface EventHandlers {
  onState(state: StateJson): void;
  /** Called after each connection with all remembered problems, newest first. */
  onProblems(problems: readonly ProblemJson[]): void;
  onProblem(problem: ProblemJson): void;
  /** Called with the state of the connection. */
  onOnlineChange(isOnline: boolean): void;
}

export class EventStream {
  readonly #api: ApiClient;
  readonly #handlers: EventHandlers;
  #source: EventSource | undefined;
  #timer = 0;
  #failures = 0;
  /** Number of the current attempt, used to discard responses to earlier ones. */
  #attempt = 0;

  constructor(api: ApiClient, handlers: EventHandlers) {
    this.#api = api;
    this.#handlers = handlers;
    // A hidden page closes its connection, because browsers allow six per server over all tabs.
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
    // EventSource does not report 401. This request does, and makes `ApiClient` ask for the key.
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
