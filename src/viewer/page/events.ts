/** Hears what the server tells once a second, for as long as the page is open. */
/// <reference lib="dom" />
import type { Api, Problem, State } from "./api.ts";

/** Milliseconds without a word after which the server counts as away: it speaks once a second. */
const silence = 6_000;

/** Milliseconds until the next attempt; the last stays. */
const pauses = [500, 1_000, 2_000, 5_000];

export interface Listeners {
  state(state: State): void;
  /** All that are remembered, the oldest first, after each connection. */
  problems(problems: readonly Problem[]): void;
  problem(problem: Problem): void;
  /** The server answers, or does no longer. */
  present(isPresent: boolean): void;
}

export class Events {
  readonly #api: Api;
  readonly #listeners: Listeners;
  #source: EventSource | undefined;
  #timer = 0;
  #failures = 0;
  /** Counts what was begun, so that an answer to an earlier attempt is known as such. */
  #attempt = 0;

  constructor(api: Api, listeners: Listeners) {
    this.#api = api;
    this.#listeners = listeners;
    // A page that nobody sees holds no connection: browsers have six for all pages of a server.
    document.addEventListener("visibilitychange", () => this.#turn(!document.hidden));
    window.addEventListener("pagehide", () => this.#turn(false));
    window.addEventListener("pageshow", ({ persisted }) => {
      if (persisted) this.#turn(true);
    });
    this.#turn(!document.hidden);
  }

  #turn(isSeen: boolean): void {
    this.#close();
    if (isSeen) void this.#connect();
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
      const { problems } = await this.#api.get<{ problems: Problem[] }>("/api/problems");
      if (attempt !== this.#attempt) return;
      this.#listeners.problems(problems);
    } catch {
      if (attempt === this.#attempt) this.#lost();
      return;
    }
    const source = new EventSource("/events");
    this.#source = source;
    this.#watch();
    source.addEventListener("state", ({ data }: MessageEvent<string>) => {
      this.#failures = 0;
      this.#watch();
      this.#listeners.present(true);
      const state = parse<State>(data);
      if (state !== undefined) this.#listeners.state(state);
    });
    source.addEventListener("problem", ({ data }: MessageEvent<string>) => {
      const problem = parse<Problem>(data);
      if (problem !== undefined) this.#listeners.problem(problem);
    });
    source.addEventListener("bye", () => this.#lost());
    source.addEventListener("error", () => this.#lost());
  }

  #watch(): void {
    clearTimeout(this.#timer);
    this.#timer = window.setTimeout(() => this.#lost(), silence);
  }

  #lost(): void {
    this.#close();
    this.#listeners.present(false);
    const pause = pauses[Math.min(this.#failures++, pauses.length - 1)]!;
    this.#timer = window.setTimeout(() => void this.#connect(), pause);
  }
}

function parse<T>(text: string): T | undefined {
  try {
    return JSON.parse(text) as T;
  } catch {
    return undefined;
  }
}
