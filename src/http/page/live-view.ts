/** The live view: sources grouped by stream, and a table of stored streams. */
/// <reference lib="dom" />
import type { ApiClient, SourceStateJson, StateJson, StreamJson } from "./api.ts";
import { SourceCard, type Standstill } from "./source-card.ts";
import { button, element, setAttribute, setText } from "./dom.ts";
import {
  displayBytes,
  displayCount,
  displayPlural,
  toMilliseconds,
  displayDateTime,
  parseNanoseconds,
} from "./format.ts";
import { LiveFrames, type LiveHeader, type SourceRef } from "./live-frames.ts";
import { formatHash } from "./route.ts";
import type { GreyPainter } from "./grey-painter.ts";

/** Interval between frames of a source with reduced motion, or after one that cannot be shown. */
const reducedMotionIntervalMs = 1_000;

/** A stream that has received frames since the server started. */
interface StreamGroup {
  readonly stream: string;
  readonly element: HTMLElement;
  readonly summary: HTMLElement;
  readonly cards: Map<string, SourceCard>;
  readonly grid: HTMLElement;
  /** Whether the history of its sources was requested. */
  isHistoryRequested: boolean;
}

export class LiveView {
  readonly #root: HTMLElement;
  readonly #api: ApiClient;
  readonly #painter: GreyPainter;
  readonly #showAddress: (stream: string, source: string) => void;
  readonly #groups = new Map<string, StreamGroup>();
  readonly #cards = new WeakMap<
    Element,
    { group: StreamGroup; source: string; card: SourceCard }
  >();
  readonly #visible = new Map<SourceCard, SourceRef>();
  readonly #frames = new LiveFrames((header, frame) => this.#showFrame(header, frame));
  readonly #observer = new IntersectionObserver((entries) => this.#onIntersection(entries), {
    rootMargin: "120px",
  });
  readonly #reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");
  readonly #streamList = element("div", { class: "streams" });
  readonly #emptyNotice = element("div", { class: "notice", hidden: true });
  readonly #storedSection = element("section", {
    class: "stored",
    "aria-labelledby": "stored-title",
  });
  readonly #rows = element("tbody");
  readonly #moreButton = button("More", () => void this.#loadStored(this.#nextCursor));
  #nextCursor: string | null = null;
  #tickCount = 0;
  #isPaused = false;
  #isOnline = false;
  #isShown = true;

  constructor(
    root: HTMLElement,
    api: ApiClient,
    painter: GreyPainter,
    showAddress: (stream: string, source: string) => void,
  ) {
    this.#root = root;
    this.#api = api;
    this.#painter = painter;
    this.#showAddress = showAddress;
    this.#emptyNotice.append(
      element("p", {
        text: "No frames yet. To send a folder of pictures from this machine:",
      }),
      element("pre", { text: "frames send FOLDER" }),
    );
    const titles = ["Stream", "Sources", "Frames", "Size", "First", "Last"];
    const head = element("tr", {}, ...titles.map((text) => element("th", { scope: "col", text })));
    this.#storedSection.append(
      element("h2", { id: "stored-title", text: "Stored" }),
      element(
        "div",
        { class: "wide" },
        element("table", {}, element("thead", {}, head), this.#rows),
      ),
      this.#moreButton,
    );
    this.#storedSection.hidden = true;
    root.append(this.#streamList, this.#emptyNotice, this.#storedSection);
    document.addEventListener("visibilitychange", () => this.#onVisibilityChange());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      for (const card of this.#visible.keys()) card.draw();
    });
  }

  /** Whether this view is shown. While it is hidden, it receives no frames. */
  get isShown(): boolean {
    return this.#isShown;
  }

  set isShown(value: boolean) {
    this.#isShown = value;
    this.#root.hidden = !value;
    if (value) void this.#loadStored(null);
    this.#updateWatchList();
  }

  /** Whether the server responds. */
  set isOnline(value: boolean) {
    this.#isOnline = value;
    this.#frames.isOnline = value;
    this.#updateStandstill();
  }

  /** Pauses the images. Figures are still updated. */
  set isPaused(value: boolean) {
    this.#isPaused = value;
    this.#updateWatchList();
    this.#updateStandstill();
  }

  get #standstill(): Standstill | undefined {
    return this.#isPaused ? "paused" : this.#isOnline ? undefined : "no connection";
  }

  #updateStandstill(): void {
    const cards = [...this.#groups.values()].flatMap((group) => [...group.cards.values()]);
    for (const card of cards) card.standstill = this.#standstill;
  }

  /** Updates all cards. Called once a second. */
  update({ sources, time }: StateJson): void {
    const now = parseNanoseconds(time);
    this.#tickCount++;
    for (const state of sources) {
      const card = this.#getOrCreateCard(state);
      card.update(state, now === undefined ? Date.now() : toMilliseconds(now), this.#tickCount);
    }
    for (const group of this.#groups.values()) this.#updateSummary(group, sources);
    if (this.#isShown && this.#tickCount % 30 === 0) void this.#loadStored(null);
    this.#updateEmptyNotice();
  }

  /** Selects the next palette of the focused image, or of all images. */
  nextPalette(): void {
    const focused = document.activeElement?.closest(".card");
    const focusedCard =
      focused === null || focused === undefined ? undefined : this.#cards.get(focused);
    const cards = focusedCard === undefined ? [...this.#visible.keys()] : [focusedCard.card];
    for (const { picture } of cards) picture.nextPalette();
  }

  #getOrCreateCard({ stream, source }: SourceStateJson): SourceCard {
    const group = this.#groups.get(stream) ?? this.#addGroup(stream);
    const existing = group.cards.get(source);
    if (existing !== undefined) return existing;
    const card = new SourceCard(stream, source, this.#painter, () =>
      this.#showAddress(stream, source),
    );
    card.standstill = this.#standstill;
    group.cards.set(source, card);
    this.#cards.set(card.element, { group, source, card });
    insertSorted(group.grid, card.element, "data-source", source);
    group.grid.classList.toggle("single", group.cards.size === 1);
    this.#observer.observe(card.element);
    return card;
  }

  #addGroup(stream: string): StreamGroup {
    const summary = element("p", { class: "about" });
    const grid = element("div", { class: "grid" });
    const group: StreamGroup = {
      stream,
      summary,
      grid,
      cards: new Map(),
      isHistoryRequested: false,
      element: element(
        "section",
        { class: "stream", "aria-label": stream, "data-stream": stream },
        element(
          "header",
          {},
          element("h2", { text: stream }),
          summary,
          element("a", {
            href: formatHash({ stream }),
            class: "to-recorded",
            text: "Recorded frames",
          }),
        ),
        grid,
      ),
    };
    this.#groups.set(stream, group);
    insertSorted(this.#streamList, group.element, "data-stream", stream);
    if (this.#groups.size > 1 || this.#tickCount > 1) void this.#loadStored(null);
    return group;
  }

  #updateSummary({ stream, summary }: StreamGroup, sources: readonly SourceStateJson[]): void {
    const ofStream = sources.filter((source) => source.stream === stream);
    const frames = ofStream.reduce((sum, source) => sum + source.frames, 0);
    const size = ofStream.reduce((sum, source) => sum + source.bytes, 0);
    setText(summary, `${displayPlural(frames, "frame")}, ${displayBytes(size)}`);
  }

  #onIntersection(entries: readonly IntersectionObserverEntry[]): void {
    for (const { target, isIntersecting } of entries) {
      const found = this.#cards.get(target);
      if (found === undefined) continue;
      const { group, source, card } = found;
      card.isVisible = isIntersecting;
      if (isIntersecting) {
        this.#visible.set(card, [group.stream, source]);
        card.draw();
        void this.#loadHistory(group);
      } else this.#visible.delete(card);
    }
    this.#updateWatchList();
  }

  /** Requests the last five minutes of the stream's sources, once. */
  async #loadHistory(group: StreamGroup): Promise<void> {
    if (group.isHistoryRequested) return;
    group.isHistoryRequested = true;
    try {
      const path = `/api/streams/${encodeURIComponent(group.stream)}`;
      const { sources } = await this.#api.get<StreamJson>(path);
      for (const { name, live } of sources) {
        if (live !== null) group.cards.get(name)?.setHistory(live);
      }
    } catch {
      // Without a history the plots start now. The overview shows that the server is offline.
    }
  }

  /** Called when the page becomes visible or hidden. */
  #onVisibilityChange(): void {
    this.#updateWatchList();
    if (document.hidden) return;
    for (const group of this.#groups.values()) {
      group.isHistoryRequested = false;
      if ([...group.cards.values()].some((card) => card.isVisible)) void this.#loadHistory(group);
    }
  }

  #updateWatchList(): void {
    const isWatching = this.#isShown && !this.#isPaused && !document.hidden;
    this.#frames.watch(isWatching ? [...this.#visible.values()] : []);
  }

  async #showFrame(header: LiveHeader, frame: Uint8Array<ArrayBuffer>): Promise<void> {
    const card = this.#groups.get(header.stream)?.cards.get(header.source);
    if (card === undefined || this.#isPaused) return;
    const hasPicture = await card.showFrame(header, frame);
    // Limits the rate of frames that cannot be shown, because they waste bandwidth.
    if (!hasPicture || this.#reducedMotion.matches)
      await new Promise((resolve) => setTimeout(resolve, reducedMotionIntervalMs));
  }

  async #loadStored(after: string | null): Promise<void> {
    try {
      const from = after === null ? "" : `&after=${encodeURIComponent(after)}`;
      const path = `/api/streams?limit=100${from}`;
      const page = await this.#api.get<{ streams: StreamJson[]; next: string | null }>(path);
      const rows = page.streams.map(createStoredRow);
      if (after === null) this.#rows.replaceChildren(...rows);
      else this.#rows.append(...rows);
      this.#nextCursor = page.next;
      this.#moreButton.hidden = page.next === null;
      this.#storedSection.hidden = this.#rows.childElementCount === 0;
      this.#updateEmptyNotice();
    } catch {
      // Keeps the current rows. The overview shows that the server is offline.
    }
  }

  #updateEmptyNotice(): void {
    this.#emptyNotice.hidden = this.#groups.size > 0 || this.#rows.childElementCount > 0;
  }
}

function createStoredRow({ name, sources }: StreamJson): HTMLElement {
  const frames = sources.reduce((sum, source) => sum + source.frames, 0);
  const size = sources.reduce((sum, source) => sum + source.bytes, 0);
  const [first, last] = captureRange(sources);
  const names = sources.map((source) => source.name);
  const shown =
    names.length > 4
      ? `${names.slice(0, 3).join(", ")} and ${names.length - 3} more`
      : names.join(", ");
  const cells = [
    shown,
    displayCount(frames),
    displayBytes(size),
    formatTime(first),
    formatTime(last),
  ];
  const row = element(
    "tr",
    {},
    element(
      "th",
      { scope: "row" },
      element("a", { href: formatHash({ stream: name }), text: name }),
    ),
    ...cells.map((text) => element("td", { text })),
  );
  setAttribute(row, "data-stream", name);
  return row;
}

/** Returns the first and last capture time over several sources. */
export function captureRange(
  sources: readonly {
    readonly firstCaptured: string | null;
    readonly lastCaptured: string | null;
  }[],
): [bigint | undefined, bigint | undefined] {
  let [first, last]: [bigint | undefined, bigint | undefined] = [undefined, undefined];
  for (const { firstCaptured, lastCaptured } of sources) {
    const [from, to] = [parseNanoseconds(firstCaptured), parseNanoseconds(lastCaptured)];
    if (from !== undefined && (first === undefined || from < first)) first = from;
    if (to !== undefined && (last === undefined || to > last)) last = to;
  }
  return [first, last];
}

function formatTime(time: bigint | undefined): string {
  return time === undefined ? "–" : displayDateTime(time).slice(0, 19);
}

/** Numeric collation: cam-2 comes before cam-10. */
const nameOrder = new Intl.Collator("en", { numeric: true });

/** Inserts an element among siblings that are sorted by the attribute `key`. */
function insertSorted(parent: HTMLElement, child: HTMLElement, key: string, name: string): void {
  const next = [...parent.children].find(
    (sibling) => nameOrder.compare(sibling.getAttribute(key) ?? "", name) > 0,
  );
  parent.insertBefore(child, next ?? null);
}
