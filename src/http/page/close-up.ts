/** One live source large, or all live sources of a stream side by side. */
/// <reference lib="dom" />
import { type ApiClient, type SourceStateJson, type StreamJson, streamPath } from "./api.ts";
import { element, setText } from "./dom.ts";
import { compareNames } from "./natural-order.ts";
import type { PictureOptions } from "./picture.ts";
import { formatHash, type ViewRoute } from "./route.ts";
import { SourceCard } from "./source-card.ts";
import { createViewTools } from "./view-tools.ts";
import { Viewport } from "./viewport.ts";

/** Limit of sources side by side. The server sends the frames of as many. */
const maxCards = 64;

export class CloseUp {
  readonly element = element("section", { class: "close-up", hidden: true });
  readonly #api: ApiClient;
  readonly #options: Pick<PictureOptions, "decoder" | "preferences">;
  readonly #showAddress: (stream: string, source: string) => void;
  readonly #onChange: (added: readonly SourceCard[], removed: readonly SourceCard[]) => void;
  readonly #stream = element("bdi");
  readonly #recorded = element("a", { class: "to-recorded", text: "Recorded frames" });
  readonly #others = element("a");
  readonly #grid = element("div", { class: "grid" });
  #route: ViewRoute | undefined;
  #viewport = new Viewport();
  #cards = new Map<string, SourceCard>();
  #states: readonly SourceStateJson[] = [];

  /** @param onChange called when cards are added or removed */
  constructor(
    api: ApiClient,
    options: Pick<PictureOptions, "decoder" | "preferences">,
    showAddress: (stream: string, source: string) => void,
    onChange: (added: readonly SourceCard[], removed: readonly SourceCard[]) => void,
  ) {
    this.#api = api;
    this.#options = options;
    this.#showAddress = showAddress;
    this.#onChange = onChange;
    this.element.append(
      element(
        "header",
        {},
        element("a", { href: "#/", text: "Live" }),
        element("span", { class: "about", "aria-hidden": true, text: "/" }),
        element("h2", {}, this.#stream),
        this.#others,
        createViewTools(() => this.chosen),
        this.#recorded,
      ),
      this.#grid,
    );
  }

  get cards(): Iterable<SourceCard> {
    return this.#cards.values();
  }

  /** The focused source, or the first one. */
  get chosen(): SourceCard | undefined {
    const cards = [...this.#cards.values()];
    return cards.find(({ element }) => element.contains(document.activeElement)) ?? cards[0];
  }

  /** Shows the live sources of a route, or hides the view. */
  show(route: ViewRoute | undefined): void {
    this.element.hidden = route === undefined;
    if (route === undefined || route.stream !== this.#route?.stream) {
      this.#viewport = new Viewport();
      this.#setCards([]);
    }
    this.#route = route;
    if (route === undefined) return;
    setText(this.#stream, route.stream);
    this.#recorded.href = formatHash({ stream: route.stream, source: route.source });
    this.#showRoute();
    void this.#loadHistory(route.stream);
  }

  /** @param now server's time in ms since 1970 */
  update(states: readonly SourceStateJson[], now: number, tick: number): void {
    this.#states = states;
    if (this.#route === undefined) return;
    this.#showRoute();
    for (const state of states) {
      if (state.stream === this.#route.stream) {
        this.#cards.get(state.source)?.update(state, now, tick);
      }
    }
  }

  get viewport(): Viewport {
    return this.#viewport;
  }

  /** Opens the live source before or after the one shown. */
  goToAdjacent(by: -1 | 1): void {
    const { stream, source } = this.#route ?? {};
    const names = this.#liveNames();
    if (stream === undefined || names.length === 0) return;
    const index = source === undefined ? (by > 0 ? -1 : 0) : names.indexOf(source);
    location.hash = formatHash({
      stream,
      source: names.at((index + by) % names.length),
      isLive: true,
    });
  }

  #liveNames(): string[] {
    return this.#states
      .filter(({ stream }) => stream === this.#route?.stream)
      .map(({ source }) => source)
      .toSorted(compareNames);
  }

  #showRoute(): void {
    const { stream, source } = this.#route!;
    const names = this.#liveNames();
    this.#setCards(source === undefined ? names.slice(0, maxCards) : [source]);
    const isSingle = source !== undefined;
    setText(this.#others, isSingle ? `All ${names.length} sources side by side` : "");
    this.#others.hidden = !isSingle || names.length < 2;
    this.#others.href = formatHash({ stream, isLive: true });
  }

  #setCards(names: readonly string[]): void {
    const removed = [...this.#cards].filter(([name]) => !names.includes(name));
    for (const [name, card] of removed) {
      this.#cards.delete(name);
      card.element.remove();
    }
    const added = names.filter((name) => !this.#cards.has(name)).map((name) => this.#create(name));
    const cards = names.map((name) => this.#cards.get(name)!);
    for (const [index, { element }] of cards.entries()) {
      const current = this.#grid.children[index] ?? null;
      if (current !== element) this.#grid.insertBefore(element, current);
    }
    this.#grid.classList.toggle("single", cards.length === 1);
    if (added.length + removed.length === 0) return;
    this.#onChange(
      added,
      removed.map(([, card]) => card),
    );
  }

  #create(source: string): SourceCard {
    const { stream } = this.#route!;
    const card = new SourceCard(
      { stream, source },
      { ...this.#options, viewport: this.#viewport },
      () => this.#showAddress(stream, source),
    );
    this.#cards.set(source, card);
    return card;
  }

  /** Requests the last five minutes of the stream's sources. */
  async #loadHistory(stream: string): Promise<void> {
    try {
      const { sources } = await this.#api.get<StreamJson>(streamPath(stream));
      if (this.#route?.stream !== stream) return;
      for (const { name, live } of sources) {
        if (live !== null) this.#cards.get(name)?.setHistory(live);
      }
    } catch {
      // Without a history the plots start now. The overview shows that the server is offline.
    }
  }
}
