/** The live view: every stream with its sources side by side, and the streams that are stored. */
/// <reference lib="dom" />
import type { Api, SourceState, State, Stream } from "./api.ts";
import { Card } from "./card.ts";
import { button, element, mark, say } from "./dom.ts";
import { bytes, count, counted, milliseconds, moment, nanoseconds } from "./format.ts";
import { LiveFrames, type LiveHeader, type Watched } from "./live-frames.ts";
import { hashOf } from "./route.ts";
import type { Thermal } from "./thermal.ts";

/** Milliseconds between frames of a source for who wants less motion, and of one that cannot be shown. */
const calmly = 1_000;

/** A stream of which something came since the server started. */
interface Group {
  readonly stream: string;
  readonly element: HTMLElement;
  readonly about: HTMLElement;
  readonly cards: Map<string, Card>;
  readonly grid: HTMLElement;
  /** The server was asked for what it remembers. */
  isAsked: boolean;
}

export class LiveView {
  readonly #root: HTMLElement;
  readonly #api: Api;
  readonly #thermal: Thermal;
  readonly #copy: (stream: string, source: string) => void;
  readonly #groups = new Map<string, Group>();
  readonly #cards = new WeakMap<Element, { group: Group; source: string; card: Card }>();
  readonly #visible = new Map<Card, Watched>();
  readonly #frames = new LiveFrames((header, frame) => this.#show(header, frame));
  readonly #observer = new IntersectionObserver((entries) => this.#onSeen(entries), {
    rootMargin: "120px",
  });
  readonly #calm = matchMedia("(prefers-reduced-motion: reduce)");
  readonly #live = element("div", { class: "streams" });
  readonly #empty = element("div", { class: "notice", hidden: true });
  readonly #stored = element("section", { class: "stored", "aria-labelledby": "stored-title" });
  readonly #rows = element("tbody");
  readonly #more = button("More", () => void this.#loadStored(this.#next));
  #next: string | null = null;
  #turn = 0;
  #isPaused = false;
  #isShown = true;

  constructor(
    root: HTMLElement,
    api: Api,
    thermal: Thermal,
    copy: (stream: string, source: string) => void,
  ) {
    this.#root = root;
    this.#api = api;
    this.#thermal = thermal;
    this.#copy = copy;
    this.#empty.append(
      element("p", {
        text: "Nothing has come yet. To send a folder of pictures from this machine:",
      }),
      element("pre", { text: "frames send FOLDER" }),
    );
    const heads = ["Stream", "Sources", "Frames", "Size", "First", "Last"];
    const head = element("tr", {}, ...heads.map((text) => element("th", { scope: "col", text })));
    this.#stored.append(
      element("h2", { id: "stored-title", text: "Stored" }),
      element(
        "div",
        { class: "wide" },
        element("table", {}, element("thead", {}, head), this.#rows),
      ),
      this.#more,
    );
    this.#stored.hidden = true;
    root.append(this.#live, this.#empty, this.#stored);
    document.addEventListener("visibilitychange", () => this.#onVisible());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      for (const card of this.#visible.keys()) card.draw();
    });
  }

  /** Whether this view is the one that is shown: nothing is brought for the other. */
  get isShown(): boolean {
    return this.#isShown;
  }

  set isShown(value: boolean) {
    this.#isShown = value;
    this.#root.hidden = !value;
    if (value) void this.#loadStored(null);
    this.#watch();
  }

  /** Whether the server answers. */
  set isPresent(value: boolean) {
    this.#frames.isPresent = value;
  }

  /** Pictures stand still; figures go on. */
  set isPaused(value: boolean) {
    this.#isPaused = value;
    this.#watch();
  }

  /** Once a second. */
  update({ sources, time }: State): void {
    const now = nanoseconds(time);
    this.#turn++;
    for (const state of sources) {
      const card = this.#cardOf(state);
      card.update(state, now === undefined ? Date.now() : milliseconds(now), this.#turn);
    }
    for (const group of this.#groups.values()) this.#sayAbout(group, sources);
    if (this.#isShown && this.#turn % 30 === 0) void this.#loadStored(null);
    this.#sayEmpty();
  }

  /** The next palette of the picture that has the focus, or of all. */
  nextPalette(): void {
    const focused = document.activeElement?.closest(".card");
    const one = focused === null || focused === undefined ? undefined : this.#cards.get(focused);
    const cards = one === undefined ? [...this.#visible.keys()] : [one.card];
    for (const { picture } of cards) picture.nextPalette();
  }

  #cardOf({ stream, source }: SourceState): Card {
    const group = this.#groups.get(stream) ?? this.#addGroup(stream);
    const known = group.cards.get(source);
    if (known !== undefined) return known;
    const card = new Card(stream, source, this.#thermal, () => this.#copy(stream, source));
    group.cards.set(source, card);
    this.#cards.set(card.element, { group, source, card });
    insertSorted(group.grid, card.element, "data-source", source);
    group.grid.classList.toggle("single", group.cards.size === 1);
    this.#observer.observe(card.element);
    return card;
  }

  #addGroup(stream: string): Group {
    const about = element("p", { class: "about" });
    const grid = element("div", { class: "grid" });
    const group: Group = {
      stream,
      about,
      grid,
      cards: new Map(),
      isAsked: false,
      element: element(
        "section",
        { class: "stream", "aria-label": stream, "data-stream": stream },
        element(
          "header",
          {},
          element("h2", { text: stream }),
          about,
          element("a", { href: hashOf({ stream }), class: "to-recorded", text: "Recorded frames" }),
        ),
        grid,
      ),
    };
    this.#groups.set(stream, group);
    insertSorted(this.#live, group.element, "data-stream", stream);
    if (this.#groups.size > 1 || this.#turn > 1) void this.#loadStored(null);
    return group;
  }

  #sayAbout({ stream, about }: Group, sources: readonly SourceState[]): void {
    const own = sources.filter((source) => source.stream === stream);
    const frames = own.reduce((sum, source) => sum + source.frames, 0);
    const size = own.reduce((sum, source) => sum + source.bytes, 0);
    say(about, `${counted(frames, "frame")}, ${bytes(size)}`);
  }

  #onSeen(entries: readonly IntersectionObserverEntry[]): void {
    for (const { target, isIntersecting } of entries) {
      const found = this.#cards.get(target);
      if (found === undefined) continue;
      const { group, source, card } = found;
      card.isVisible = isIntersecting;
      if (isIntersecting) {
        this.#visible.set(card, [group.stream, source]);
        card.draw();
        void this.#remember(group);
      } else this.#visible.delete(card);
    }
    this.#watch();
  }

  /** Asks once for each stream what its last minutes were. */
  async #remember(group: Group): Promise<void> {
    if (group.isAsked) return;
    group.isAsked = true;
    try {
      const path = `/api/streams/${encodeURIComponent(group.stream)}`;
      const { sources } = await this.#api.get<Stream>(path);
      for (const { name, live } of sources) {
        if (live !== null) group.cards.get(name)?.remember(live);
      }
    } catch {
      // The plots begin now instead; whether the server is away is said elsewhere.
    }
  }

  /** Whether the page itself is seen has changed. */
  #onVisible(): void {
    this.#watch();
    if (document.hidden) return;
    for (const group of this.#groups.values()) {
      group.isAsked = false;
      if ([...group.cards.values()].some((card) => card.isVisible)) void this.#remember(group);
    }
  }

  #watch(): void {
    const isWatching = this.#isShown && !this.#isPaused && !document.hidden;
    this.#frames.watch(isWatching ? [...this.#visible.values()] : []);
  }

  async #show(header: LiveHeader, frame: Uint8Array<ArrayBuffer>): Promise<void> {
    const card = this.#groups.get(header.stream)?.cards.get(header.source);
    if (card === undefined || this.#isPaused) return;
    const isShown = await card.show(header, frame);
    // What cannot be shown is not worth its way either.
    if (!isShown || this.#calm.matches) await new Promise((go) => setTimeout(go, calmly));
  }

  async #loadStored(after: string | null): Promise<void> {
    try {
      const from = after === null ? "" : `&after=${encodeURIComponent(after)}`;
      const path = `/api/streams?limit=100${from}`;
      const page = await this.#api.get<{ streams: Stream[]; next: string | null }>(path);
      const rows = page.streams.map(storedRow);
      if (after === null) this.#rows.replaceChildren(...rows);
      else this.#rows.append(...rows);
      this.#next = page.next;
      this.#more.hidden = page.next === null;
      this.#stored.hidden = this.#rows.childElementCount === 0;
      this.#sayEmpty();
    } catch {
      // What is there stays; whether the server is away is said elsewhere.
    }
  }

  #sayEmpty(): void {
    this.#empty.hidden = this.#groups.size > 0 || this.#rows.childElementCount > 0;
  }
}

function storedRow({ name, sources }: Stream): HTMLElement {
  const frames = sources.reduce((sum, source) => sum + source.frames, 0);
  const size = sources.reduce((sum, source) => sum + source.bytes, 0);
  const [first, last] = spanOf(sources);
  const names = sources.map((source) => source.name);
  const shown =
    names.length > 4
      ? `${names.slice(0, 3).join(", ")} and ${names.length - 3} more`
      : names.join(", ");
  const cells = [shown, count(frames), bytes(size), timeOf(first), timeOf(last)];
  const row = element(
    "tr",
    {},
    element("th", { scope: "row" }, element("a", { href: hashOf({ stream: name }), text: name })),
    ...cells.map((text) => element("td", { text })),
  );
  mark(row, "data-stream", name);
  return row;
}

/** First and last capture time of several sources. */
export function spanOf(
  sources: readonly {
    readonly firstCaptured: string | null;
    readonly lastCaptured: string | null;
  }[],
): [bigint | undefined, bigint | undefined] {
  let [first, last]: [bigint | undefined, bigint | undefined] = [undefined, undefined];
  for (const { firstCaptured, lastCaptured } of sources) {
    const [from, to] = [nanoseconds(firstCaptured), nanoseconds(lastCaptured)];
    if (from !== undefined && (first === undefined || from < first)) first = from;
    if (to !== undefined && (last === undefined || to > last)) last = to;
  }
  return [first, last];
}

function timeOf(time: bigint | undefined): string {
  return time === undefined ? "–" : moment(time).slice(0, 19);
}

/** cam-2 comes before cam-10. */
const order = new Intl.Collator("en", { numeric: true });

/** Puts an element among its siblings, which are sorted by an attribute. */
function insertSorted(parent: HTMLElement, child: HTMLElement, key: string, name: string): void {
  const next = [...parent.children].find(
    (sibling) => order.compare(sibling.getAttribute(key) ?? "", name) > 0,
  );
  parent.insertBefore(child, next ?? null);
}
