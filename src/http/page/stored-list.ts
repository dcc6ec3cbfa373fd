/** The list of stored streams, each with a still picture and its size. */
/// <reference lib="dom" />
import { type ApiClient, captureRange, type StreamJson } from "./api.ts";
import { button, element, setText } from "./dom.ts";
import {
  displayBytes,
  displayDateTime,
  displayPlural,
  parseNanoseconds,
  zoneName,
} from "./format.ts";
import { compareNames } from "./natural-order.ts";
import type { PictureOptions } from "./picture.ts";
import { formatHash } from "./route.ts";
import { StoredPicture } from "./stored-picture.ts";

/** Size of a frame up to which it is fetched as a still. */
const maxStillBytes = 8 << 20;

/** Streams requested at a time. */
const pageSize = 100;

export class StoredList {
  readonly element = element("section", {
    class: "stored",
    "aria-labelledby": "stored-title",
    hidden: true,
  });
  readonly #api: ApiClient;
  readonly #options: Pick<PictureOptions, "decoder" | "preferences">;
  readonly #title = element("h2", {
    id: "stored-title",
    text: "Stored streams",
    tabindex: -1,
  });
  readonly #rows = element("ul");
  readonly #moreButton = button("More streams", () => void this.#load(this.#nextCursor));
  readonly #entries = new Map<string, StoredStream>();
  readonly #observer = new IntersectionObserver((seen) => this.#onIntersection(seen), {
    rootMargin: "100px",
  });
  /** The stills that are fetched, one after the other. */
  #stills: Promise<void> = Promise.resolve();
  #nextCursor: string | null = null;

  constructor(api: ApiClient, options: Pick<PictureOptions, "decoder" | "preferences">) {
    this.#api = api;
    this.#options = options;
    this.element.append(this.#title, this.#rows, this.#moreButton);
  }

  /** Number of streams listed. */
  get length(): number {
    return this.#entries.size;
  }

  /** Scrolls to the list. */
  focus(): void {
    this.element.scrollIntoView();
    this.#title.focus({ preventScroll: true });
  }

  /** Requests the first page again; keeps what is listed if that fails. */
  async refresh(): Promise<void> {
    await this.#load(null);
  }

  async #load(after: string | null): Promise<void> {
    try {
      const from = after === null ? "" : `&after=${encodeURIComponent(after)}`;
      const path = `/api/streams?limit=${pageSize}${from}`;
      const page = await this.#api.get<{ streams: StreamJson[]; next: string | null }>(path);
      // A refresh does not shorten a list that was extended.
      if (after !== null || this.#entries.size <= pageSize) {
        if (after === null) this.#removeOthers(page.streams);
        this.#nextCursor = page.next;
        this.#moreButton.hidden = page.next === null;
      }
      for (const stream of page.streams) this.#show(stream);
      this.element.hidden = this.#entries.size === 0;
    } catch {
      // Keeps the current rows. The overview shows that the server is offline.
    }
  }

  #removeOthers(streams: readonly StreamJson[]): void {
    const names = new Set(streams.map(({ name }) => name));
    for (const [name, entry] of this.#entries) {
      if (names.has(name)) continue;
      this.#entries.delete(name);
      this.#observer.unobserve(entry.element);
      entry.close();
    }
  }

  #show(stream: StreamJson): void {
    let entry = this.#entries.get(stream.name);
    if (entry === undefined) {
      entry = new StoredStream(stream.name, this.#api, this.#options);
      this.#entries.set(stream.name, entry);
      const names = [...this.#entries.keys()].toSorted(compareNames);
      const next = names[names.indexOf(stream.name) + 1];
      const before = next === undefined ? null : this.#entries.get(next)!.element;
      this.#rows.insertBefore(entry.element, before);
      this.#observer.observe(entry.element);
    }
    entry.update(stream);
    if (entry.isVisible) this.#enqueueStill(entry);
  }

  #onIntersection(seen: readonly IntersectionObserverEntry[]): void {
    for (const { target, isIntersecting } of seen) {
      const entry = [...this.#entries.values()].find(({ element }) => element === target);
      if (entry === undefined) continue;
      entry.isVisible = isIntersecting;
      if (isIntersecting) this.#enqueueStill(entry);
      else entry.clearStill();
    }
  }

  #enqueueStill(entry: StoredStream): void {
    this.#stills = this.#stills.then(() => entry.loadStill());
  }
}

/** One stream of the list. */
class StoredStream {
  readonly element: HTMLElement;
  isVisible = false;
  readonly #name: string;
  readonly #api: ApiClient;
  readonly #stored: StoredPicture;
  readonly #sources = element("span", { class: "sources" });
  readonly #size = element("span", { class: "size" });
  readonly #times = element("span", { class: "times" });
  /** The source whose newest frame is the still, and when that was captured. */
  #newest: { readonly source: string; readonly at: bigint } | undefined;
  #stillAt: bigint | undefined;

  constructor(
    name: string,
    api: ApiClient,
    options: Pick<PictureOptions, "decoder" | "preferences">,
  ) {
    this.#name = name;
    this.#api = api;
    this.#stored = new StoredPicture(api, { ...options, source: { stream: name, source: "" } });
    this.#stored.picture.label = `Newest frame of ${name}`;
    this.element = element(
      "li",
      { "data-stream": name },
      this.#stored.picture.element,
      element(
        "div",
        { class: "facts-of-stream" },
        element("a", { href: formatHash({ stream: name }) }, element("bdi", { text: name })),
        this.#sources,
      ),
      this.#size,
      this.#times,
    );
  }

  update({ sources, otherSources = 0 }: StreamJson): void {
    const frames = sources.reduce((sum, source) => sum + source.frames, 0);
    const size = sources.reduce((sum, source) => sum + source.bytes, 0);
    const names = sources.map((source) => source.name).toSorted(compareNames);
    const more = names.length + otherSources - 3;
    const shown = names.slice(0, 3).join(", ") + (more > 0 ? ` and ${more} more` : "");
    setText(this.#sources, shown);
    setText(this.#size, `${displayBytes(size)}, ${displayPlural(frames, "frame")}`);
    const [first, last] = captureRange(sources);
    const time = (at: bigint): string => displayDateTime(at).slice(0, 19);
    setText(
      this.#times,
      first === undefined || last === undefined
        ? ""
        : `${time(first)} – ${endOfRange(time(first), time(last))} ${zoneName(last)}`,
    );
    for (const { name, lastCaptured } of sources) {
      const at = parseNanoseconds(lastCaptured);
      if (at !== undefined && at === last) this.#newest = { source: name, at };
    }
  }

  /** Shows the newest frame, unless it is shown already. */
  async loadStill(): Promise<void> {
    if (!this.isVisible || this.#newest === undefined || this.#newest.at === this.#stillAt) return;
    const { source, at } = this.#newest;
    this.#stillAt = at;
    try {
      const [frame] = await this.#api.moment(this.#name, [source], at);
      if (frame === undefined) return;
      if (frame.size > maxStillBytes) {
        return this.#stored.picture.showError(displayBytes(frame.size));
      }
      await this.#stored.show(frame);
    } catch {
      // The list is usable without stills.
    }
  }

  clearStill(): void {
    this.#stillAt = undefined;
    this.#stored.clear();
  }

  close(): void {
    this.element.remove();
    this.#stored.close();
  }
}

/** Leaves out the day of the end of a range if it is that of its start. */
function endOfRange(first: string, last: string): string {
  return first.slice(0, 10) === last.slice(0, 10) ? last.slice(11) : last;
}
