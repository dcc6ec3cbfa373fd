/** The wall: all live sources as tiles, which fit the window up to sixteen. */
/// <reference lib="dom" />
import type { SourceStateJson } from "./api.ts";
import { announce, button, element, setAttribute, setText } from "./dom.ts";
import { displayCount, displayPlural, parseNanoseconds, toMilliseconds } from "./format.ts";
import { compareSources, keyOf } from "./natural-order.ts";
import type { PictureOptions } from "./picture.ts";
import type { Preferences, TileSize } from "./preferences.ts";
import { tileSizes } from "./preferences.ts";
import { formatHash } from "./route.ts";
import { Tile, type TileActions } from "./tile.ts";
import { fitTiles, maxFittedTiles, scrollTiles, type TileRoom } from "./tile-layout.ts";

/** CSS pixels between tiles, height of a caption, and least height of the wall. */
const gapPx = 8;
const captionPx = 26;
const minHeightPx = 240;

/** Time in ms that a source stays which sends nothing and has not ended. */
const maxMissedMs = 86_400_000;

/** Sources that ended last of which the recording is linked. */
const maxEndedLinks = 4;

/** Texts of the sizes. */
const sizeNames: Readonly<Record<TileSize, string>> = {
  fit: "Fit to window",
  small: "Small",
  medium: "Medium",
  large: "Large",
};

export class Wall implements TileActions {
  readonly element: HTMLElement;
  readonly #options: Pick<PictureOptions, "decoder" | "preferences">;
  readonly #preferences: Preferences;
  readonly #list = element("ul", { class: "tiles" });
  readonly #count = element("p", { class: "about" });
  /** Sources that ended in the last minutes. Their frames are recorded. */
  readonly #ended = element("p", { class: "about ended", hidden: true });
  readonly #toStored: HTMLButtonElement;
  readonly #hiddenList = element("ul", { class: "hidden-sources" });
  readonly #arrange = button("Arrange", () => this.#toggleArranging(), { "aria-pressed": "false" });
  readonly #tiles = new Map<string, Tile>();
  /** Keys of the sources that the list of hidden ones has, and that of ended ones. */
  #hiddenKeys = "";
  #endedKeys = "";
  /** Called when tiles are added or removed. */
  readonly #onChange: (added: readonly Tile[], removed: readonly Tile[]) => void;

  /** @param onShowStored called to show the stored streams, which are below the tiles */
  constructor(
    options: Pick<PictureOptions, "decoder" | "preferences">,
    onChange: (added: readonly Tile[], removed: readonly Tile[]) => void,
    onShowStored: () => void,
  ) {
    this.#options = options;
    this.#preferences = options.preferences;
    this.#onChange = onChange;
    this.#toStored = button("", onShowStored, { class: "quiet", hidden: true });
    const size = element("select", { "aria-label": "Size of the tiles" });
    size.append(
      ...tileSizes.map((name) => element("option", { value: name, text: sizeNames[name] })),
    );
    size.value = this.#preferences.tileSize;
    size.addEventListener("change", () => {
      this.#preferences.tileSize = size.value as TileSize;
      this.#layOut();
    });
    const header = element(
      "header",
      {},
      element("h2", { id: "wall-title", text: "Live" }),
      this.#count,
      this.#ended,
      this.#toStored,
      element("div", { class: "wall-tools" }, size, this.#arrange),
    );
    this.element = element(
      "section",
      { class: "wall", "aria-labelledby": "wall-title", hidden: true },
      header,
      this.#hiddenList,
      this.#list,
    );
    const observer = new ResizeObserver(() => this.#layOut());
    for (const part of [header, this.#list]) observer.observe(part);
    window.addEventListener("resize", () => this.#layOut());
  }

  /** Number of stored streams that the page lists below. */
  set storedCount(value: number) {
    setText(this.#toStored, `${displayPlural(value, "stored stream")} below`);
    this.#toStored.hidden = value === 0;
  }

  get tiles(): Iterable<Tile> {
    return this.#tiles.values();
  }

  /**
   * Shows the sources that have not ended, except those that the user has hidden. One that the server
   * lists no more is missed, so it stays for a day.
   *
   * @param others number of sources that the server has left out
   * @param now server's time in ms since 1970
   */
  update(states: readonly SourceStateJson[], others: number, now: number): void {
    const hidden = new Set(this.#preferences.hidden);
    const live = new Map<string, SourceStateJson>();
    const ended = new Map<string, SourceStateJson>();
    for (const state of states) {
      if (state.ended) ended.set(keyOf(state), state);
      else live.set(keyOf(state), state);
    }
    for (const { key, latest } of this.#tiles.values()) {
      const isMissed = others === 0 && !live.has(key) && !ended.has(key);
      if (!isMissed || latest === undefined) continue;
      if (now - receivedMs(latest) < maxMissedMs) live.set(key, latest);
    }
    const [added, removed]: [Tile[], Tile[]] = [[], []];
    for (const [key, tile] of this.#tiles) {
      if (live.has(key) && !hidden.has(key)) continue;
      this.#tiles.delete(key);
      tile.element.remove();
      removed.push(tile);
    }
    for (const [key, state] of live) {
      if (hidden.has(key)) continue;
      let tile = this.#tiles.get(key);
      if (tile === undefined) {
        tile = new Tile({ stream: state.stream, source: state.source }, this.#options, this);
        this.#tiles.set(key, tile);
        added.push(tile);
      }
      tile.update(state, now);
    }
    if (added.length > 0) this.#sort();
    const hiddenStates = [...live.values()].filter((state) => hidden.has(keyOf(state)));
    this.#showCounts(hiddenStates, others);
    this.#showEnded([...ended.values()]);
    this.element.hidden = live.size + ended.size === 0;
    if (added.length + removed.length === 0) return;
    this.#layOut();
    this.#onChange(added, removed);
  }

  #showCounts(hiddenStates: readonly SourceStateJson[], others: number): void {
    const total = this.#tiles.size + hiddenStates.length;
    const hiddenText = hiddenStates.length === 0 ? "" : `, ${hiddenStates.length} hidden`;
    const othersText = others === 0 ? "" : `, ${displayCount(others)} more not listed`;
    setText(this.#count, `${displayPlural(total, "source")}${hiddenText}${othersText}`);
    const isArranging = this.element.classList.contains("arranging");
    this.#hiddenList.hidden = hiddenStates.length === 0 || !isArranging;
    const keys = hiddenStates.map(keyOf).join();
    if (this.#hiddenKeys === keys) return;
    this.#hiddenKeys = keys;
    this.#hiddenList.replaceChildren(
      ...hiddenStates.toSorted(compareSources).map((state) =>
        element(
          "li",
          {},
          button(`Show ${state.source}`, () => this.#show(keyOf(state)), {
            title: `${state.stream} / ${state.source}`,
          }),
        ),
      ),
    );
  }

  /** Links the recordings of sources that ended, of which no tile is left. */
  #showEnded(states: readonly SourceStateJson[]): void {
    const keys = states.map(keyOf).join();
    if (this.#endedKeys === keys) return;
    this.#endedKeys = keys;
    const links = states
      .toSorted((one, other) => receivedMs(other) - receivedMs(one))
      .slice(0, maxEndedLinks)
      .map(({ stream, source }) =>
        element("a", { href: formatHash({ stream, source }), text: `${stream} / ${source}` }),
      );
    const more = states.length - links.length;
    this.#ended.replaceChildren(
      "Ended: ",
      ...links,
      more > 0 ? `and ${displayCount(more)} more` : "",
    );
    this.#ended.hidden = states.length === 0;
  }

  /** Orders the tiles as the user has placed them, and the others by name behind them. */
  #sort(): void {
    const places = new Map(this.#preferences.order.map((key, place) => [key, place]));
    const place = ({ key }: Tile): number => places.get(key) ?? Infinity;
    const sorted = [...this.#tiles.values()].toSorted((one, other) => {
      const [a, b] = [place(one), place(other)];
      return a === b ? compareSources(one.name, other.name) : a - b;
    });
    for (const [index, { element }] of sorted.entries()) {
      const current = this.#list.children[index] ?? null;
      if (current !== element) this.#list.insertBefore(element, current);
    }
  }

  move(key: string, by: -1 | 1): void {
    const tile = this.#tiles.get(key);
    const sibling =
      by < 0 ? tile?.element.previousElementSibling : tile?.element.nextElementSibling;
    if (tile === undefined || !(sibling instanceof HTMLElement)) return;
    const focused = document.activeElement;
    if (by < 0) sibling.before(tile.element);
    else sibling.after(tile.element);
    if (focused instanceof HTMLElement) focused.focus();
    const elements = [...this.#list.children];
    const keyByElement = new Map([...this.#tiles.values()].map((one) => [one.element, one.key]));
    const keys = elements.map((one) => keyByElement.get(one as HTMLElement)!);
    // Sources that are away keep their places behind.
    const away = this.#preferences.order.filter((name) => !keys.includes(name));
    this.#preferences.order = [...keys, ...away];
    announce(`${tile.name.source} is number ${elements.indexOf(tile.element) + 1}`);
  }

  hide(key: string): void {
    const tile = this.#tiles.get(key);
    if (tile === undefined) return;
    this.#preferences.hidden = [...this.#preferences.hidden, key];
    const next = tile.element.nextElementSibling ?? tile.element.previousElementSibling;
    this.#tiles.delete(key);
    tile.element.remove();
    this.#layOut();
    this.#onChange([], [tile]);
    const nextTile = [...this.#tiles.values()].find(({ element }) => element === next);
    if (nextTile !== undefined) nextTile.focus();
    else this.#arrange.focus();
    announce(`${tile.name.source} is hidden`);
  }

  #show(key: string): void {
    this.#preferences.hidden = this.#preferences.hidden.filter((name) => name !== key);
    this.#arrange.focus();
    announce("The source is shown again");
  }

  #toggleArranging(): void {
    const isArranging = this.element.classList.toggle("arranging");
    setAttribute(this.#arrange, "aria-pressed", `${isArranging}`);
    setText(this.#arrange, isArranging ? "Done" : "Arrange");
    const hasHidden = this.#hiddenList.childElementCount > 0;
    this.#hiddenList.hidden = !isArranging || !hasHidden;
    this.#layOut();
  }

  /** Chooses the size of the tiles. */
  #layOut(): void {
    const count = this.#tiles.size;
    const { width, top } = this.#list.getBoundingClientRect();
    if (count === 0 || width === 0) return;
    const height = Math.max(minHeightPx, window.innerHeight - (top + window.scrollY) - gapPx);
    const room: TileRoom = { width, height, gap: gapPx, caption: captionPx };
    const size = this.#preferences.tileSize;
    const isFitted = size === "fit" && count <= maxFittedTiles;
    const grid = isFitted
      ? fitTiles(count, room)
      : scrollTiles(size === "fit" ? "small" : size, room);
    this.#list.style.setProperty("--columns", `${grid.columns}`);
    this.#list.style.setProperty("--tile-height", `${grid.height}px`);
  }
}

function receivedMs({ received }: SourceStateJson): number {
  return toMilliseconds(parseNanoseconds(received) ?? 0n);
}
