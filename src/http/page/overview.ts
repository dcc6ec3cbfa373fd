/** Header and footer of the page: connection, store, senders and problems. */
/// <reference lib="dom" />
import type { ProblemJson, SenderJson, StateJson, StoreJson } from "./api.ts";
import { announce, button, byId, element, setAttribute, setText } from "./dom.ts";
import {
  displayBytes,
  displayTimeOfDay,
  displayCount,
  displayPlural,
  displayDuration,
  toMilliseconds,
  displayDateTime,
  parseNanoseconds,
  zoneName,
} from "./format.ts";
import type { Preferences } from "./preferences.ts";

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
  readonly #list = element("ol", {
    class: "problems",
    tabindex: 0,
    "aria-labelledby": "problems-title",
  });
  readonly #clear = button("Clear", () => this.#clearProblems());
  readonly #preferences: Preferences;
  /** Newest first. */
  #shownProblems: readonly ProblemJson[] = [];
  #isOnline: boolean | undefined;
  #announcedAt = 0;

  constructor(preferences: Preferences) {
    this.#preferences = preferences;
    for (const [from, to] of [
      [this.#sendersButton, "senders-title"],
      [this.#problemsButton, "problems-title"],
    ] as const) {
      from.addEventListener("click", () => {
        const title = byId(to, HTMLElement);
        title.closest("section")!.scrollIntoView({ block: "nearest" });
        title.focus({ preventScroll: true });
      });
    }
    this.#showProblems();
  }

  /** Whether the server responds. */
  set isOnline(value: boolean) {
    if (value === this.#isOnline) return;
    const wasOnline = this.#isOnline;
    this.#isOnline = value;
    document.body.classList.toggle("away", !value);
    document.body.classList.toggle("present", value);
    const now = BigInt(Date.now()) * 1_000_000n;
    const since = `${displayTimeOfDay(now).slice(0, 8)} ${zoneName(now)}`;
    setText(
      this.#connection,
      value
        ? "Connected"
        : wasOnline === true
          ? `No connection to the server since ${since}; trying again`
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
    const senderList = element("ul", {
      class: "senders",
      tabindex: 0,
      "aria-labelledby": "senders-title",
    });
    for (const [first, second] of lines) {
      senderList.append(
        element("li", {}, element("span", { text: first }), element("small", { text: second })),
      );
    }
    this.#senders.replaceChildren(senderList);
  }

  /** Replaces the list of problems, in any order. */
  setProblems(problems: readonly ProblemJson[]): void {
    this.#shownProblems = problems.toSorted((one, other) => (timeOf(one) < timeOf(other) ? 1 : -1));
    this.#showProblems();
  }

  /** Adds a new problem and announces it. */
  addProblem(problem: ProblemJson): void {
    this.#shownProblems = [problem, ...this.#shownProblems];
    this.#showProblems();
    if (Date.now() - this.#announcedAt < announceIntervalMs) return;
    this.#announcedAt = Date.now();
    announce(problem.message);
  }

  /** Shows the times of problems in the zone that was chosen. */
  onTimeZoneChange(): void {
    this.#showProblems();
  }

  /** Hides the problems that are shown, also when the page is loaded again. */
  #clearProblems(): void {
    const [newest] = this.#shownProblems;
    if (newest !== undefined) this.#preferences.clearedProblem = timeOf(newest);
    this.#showProblems();
    byId("problems-title", HTMLElement).focus();
  }

  #showProblems(): void {
    const cleared = this.#preferences.clearedProblem;
    this.#shownProblems = this.#shownProblems
      .filter((problem) => timeOf(problem) > cleared)
      .slice(0, maxProblems);
    const count = this.#shownProblems.length;
    setText(this.#problemsButton, count === 0 ? "No problems" : displayPlural(count, "problem"));
    this.#problemsButton.classList.toggle("bad", count > 0);
    this.#list.replaceChildren(...this.#shownProblems.map(createProblemItem));
    if (count > 0) this.#problems.replaceChildren(this.#list, this.#clear);
    else this.#problems.replaceChildren(cleared === 0n ? noProblems : noNewProblems);
  }
}

const noProblems = "No problems since the server started.";
const noNewProblems = "No problems since they were cleared.";

/** Returns the time of a problem in ns since 1970. */
function timeOf({ time }: ProblemJson): bigint {
  return parseNanoseconds(time) ?? 0n;
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
    setAttribute(item.firstElementChild!, "title", `${displayDateTime(at)} ${zoneName(at)}`);
  if (where !== "") item.append(element("small", { text: where }));
  setAttribute(item, "data-code", code);
  return item;
}
