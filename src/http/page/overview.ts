/** Header and footer of the page: connection, store, senders and problems. */
/// <reference lib="dom" />
import type { ProblemJson, SenderJson, StateJson, StoreJson } from "./api.ts";
import { announce, byId, element, setAttribute, setText } from "./dom.ts";
import {
  displayBytes,
  displayTimeOfDay,
  displayCount,
  displayPlural,
  displayDuration,
  toMilliseconds,
  displayDateTime,
  parseNanoseconds,
} from "./format.ts";

/** Limit of listed problems; the server remembers as many. */
const maxProblems = 100;

/** Minimum interval between problems announced to screen readers. */
const announceIntervalMs = 10_000;

export class Overview {
  readonly #connection = byId("link", HTMLElement);
  readonly #summary = byId("summary", HTMLElement);
  readonly #senders = byId("senders", HTMLElement);
  readonly #store = byId("store", HTMLElement);
  readonly #problems = byId("problems", HTMLElement);
  readonly #sendersButton = byId("to-senders", HTMLButtonElement);
  readonly #problemsButton = byId("to-problems", HTMLButtonElement);
  readonly #list = element("ol", { class: "problems" });
  #isOnline: boolean | undefined;
  #announcedAt = 0;

  constructor() {
    for (const [from, to] of [
      [this.#sendersButton, "senders-title"],
      [this.#problemsButton, "problems-title"],
    ] as const) {
      from.addEventListener("click", () => {
        const title = byId(to, HTMLElement);
        title.scrollIntoView({ block: "nearest" });
        title.focus();
      });
    }
    this.#updateProblemCount();
  }

  /** Whether the server responds. */
  set isOnline(value: boolean) {
    if (value === this.#isOnline) return;
    const wasOnline = this.#isOnline;
    this.#isOnline = value;
    document.body.classList.toggle("away", !value);
    document.body.classList.toggle("present", value);
    const since = new Date().toISOString().slice(11, 19);
    setText(
      this.#connection,
      value
        ? "Connected"
        : wasOnline === true
          ? `No connection to the server since ${since} UTC; trying again`
          : "The server does not answer; trying again",
    );
  }

  update({ store, senders, time }: StateJson): void {
    const now = parseNanoseconds(time);
    this.#updateStore(store);
    this.#updateSenders(senders, now === undefined ? Date.now() : toMilliseconds(now));
  }

  #updateStore(store: StoreJson | null): void {
    if (store === null) {
      setText(this.#summary, "");
      setText(this.#store, "This key does not give access to the store.");
      return;
    }
    const [frames, size] = [Number(store.frames), Number(store.bytes)];
    const free = store.free === null ? undefined : Number(store.free);
    const total = store.total === null ? undefined : Number(store.total);
    const freeText = free === undefined ? "" : `, ${displayBytes(free)} free`;
    setText(
      this.#summary,
      `${displayPlural(frames, "frame")}, ${displayBytes(size)} stored${freeText}`,
    );
    if (this.#store.childElementCount === 0) {
      this.#store.append(
        element("p", { class: "place" }),
        element("div", { class: "room" }, element("div")),
        element("p"),
      );
    }
    const [place, bar, text] = this.#store.children;
    setText(place!, store.place);
    const hasRoom = free !== undefined && total !== undefined && total > 0;
    bar!.toggleAttribute("hidden", !hasRoom);
    if (hasRoom) {
      const used = (1 - free / total) * 100;
      (bar!.firstElementChild as HTMLElement).style.width = `${used}%`;
      bar!.classList.toggle("short", used > 90);
    }
    const ofTotal = hasRoom ? ` of ${displayBytes(total)}` : "";
    const left = free === undefined ? "" : `; ${displayBytes(free)}${ofTotal} free`;
    setText(text!, `${displayPlural(frames, "frame")} in ${displayBytes(size)}${left}`);
  }

  #updateSenders(senders: readonly SenderJson[], now: number): void {
    setText(this.#sendersButton, displayPlural(senders.length, "sender"));
    if (senders.length === 0) {
      setText(this.#senders, "No sender is connected.");
      return;
    }
    // Rebuilds the list only if its text changed, so that a text selection survives.
    const lines = senders.map((sender) => formatSender(sender, now));
    const text = JSON.stringify(lines);
    if (this.#senders.dataset["said"] === text) return;
    this.#senders.dataset["said"] = text;
    const senderList = element("ul", { class: "senders" });
    for (const [first, second] of lines) {
      senderList.append(
        element("li", {}, element("span", { text: first }), element("small", { text: second })),
      );
    }
    this.#senders.replaceChildren(senderList);
  }

  /** Replaces the list of problems, in any order. */
  setProblems(problems: readonly ProblemJson[]): void {
    const ordered = problems.toSorted((one, other) =>
      BigInt(one.time) < BigInt(other.time) ? 1 : -1,
    );
    this.#list.replaceChildren(...ordered.slice(0, maxProblems).map(createProblemItem));
    this.#updateProblemCount();
  }

  /** Adds a new problem and announces it. */
  addProblem(problem: ProblemJson): void {
    this.#list.prepend(createProblemItem(problem));
    while (this.#list.childElementCount > maxProblems) this.#list.lastElementChild?.remove();
    this.#updateProblemCount();
    if (Date.now() - this.#announcedAt < announceIntervalMs) return;
    this.#announcedAt = Date.now();
    announce(problem.message);
  }

  #updateProblemCount(): void {
    const number = this.#list.childElementCount;
    setText(this.#problemsButton, number === 0 ? "No problems" : displayPlural(number, "problem"));
    this.#problemsButton.classList.toggle("bad", number > 0);
    if (number === 0) setText(this.#problems, "No problems since the server started.");
    else if (this.#list.parentNode !== this.#problems) this.#problems.replaceChildren(this.#list);
  }
}

function formatSender(sender: SenderJson, now: number): readonly [string, string] {
  const since = parseNanoseconds(sender.since);
  const age =
    since === undefined ? "" : `, for ${displayDuration(Math.max(0, now - toMilliseconds(since)))}`;
  const names = sender.sources.slice(0, 6).join(", ");
  const more = sender.sources.length > 6 ? ` and ${sender.sources.length - 6} more` : "";
  const key = sender.key === null ? "" : `, key ${sender.key}`;
  const software = sender.software === null ? "" : `, ${sender.software}`;
  return [
    `${sender.stream}: ${names}${more}`,
    `${sender.peer}${key}${software}${age}; ${displayCount(sender.frames)} frames, ${displayBytes(sender.bytes)}`,
  ];
}

function createProblemItem({ time, code, message, stream, source }: ProblemJson): HTMLElement {
  const at = parseNanoseconds(time);
  const where = [stream, source].filter((part) => part !== null).join(" / ");
  const item = element(
    "li",
    {},
    element("time", { text: at === undefined ? "" : displayTimeOfDay(at).slice(0, 8) }),
    element("span", { text: message }),
  );
  if (at !== undefined)
    setAttribute(item.firstElementChild!, "title", `${displayDateTime(at)} UTC`);
  if (where !== "") item.append(element("small", { text: where }));
  setAttribute(item, "data-code", code);
  return item;
}
