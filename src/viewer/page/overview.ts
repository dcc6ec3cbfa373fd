/** What the head and the foot of the page say: the server, its store, who sends, and what went wrong. */
/// <reference lib="dom" />
import type { Problem, Sender, State, Store } from "./api.ts";
import { announce, byId, element, mark, say } from "./dom.ts";
import {
  bytes,
  clock,
  count,
  counted,
  duration,
  milliseconds,
  moment,
  nanoseconds,
} from "./format.ts";

/** Problems that are shown, as many as the server remembers. */
const most = 100;

/** Milliseconds between two things that are read out. */
const quiet = 10_000;

export class Overview {
  readonly #link = byId("link", HTMLElement);
  readonly #summary = byId("summary", HTMLElement);
  readonly #senders = byId("senders", HTMLElement);
  readonly #store = byId("store", HTMLElement);
  readonly #problems = byId("problems", HTMLElement);
  readonly #toSenders = byId("to-senders", HTMLButtonElement);
  readonly #toProblems = byId("to-problems", HTMLButtonElement);
  readonly #list = element("ol", { class: "problems" });
  #isPresent: boolean | undefined;
  #announced = 0;

  constructor() {
    for (const [from, to] of [
      [this.#toSenders, "senders-title"],
      [this.#toProblems, "problems-title"],
    ] as const) {
      from.addEventListener("click", () => {
        const title = byId(to, HTMLElement);
        title.scrollIntoView({ block: "nearest" });
        title.focus();
      });
    }
    this.#countProblems();
  }

  /** The server answers, or does no longer. */
  set isPresent(value: boolean) {
    if (value === this.#isPresent) return;
    const wasPresent = this.#isPresent;
    this.#isPresent = value;
    document.body.classList.toggle("away", !value);
    document.body.classList.toggle("present", value);
    const since = new Date().toISOString().slice(11, 19);
    say(
      this.#link,
      value
        ? "Connected"
        : wasPresent === true
          ? `The server is away since ${since} UTC; looking for it`
          : "The server does not answer; looking for it",
    );
  }

  update({ store, senders, time }: State): void {
    const now = nanoseconds(time);
    this.#sayStore(store);
    this.#saySenders(senders, now === undefined ? Date.now() : milliseconds(now));
  }

  #sayStore(store: Store | null): void {
    if (store === null) {
      say(this.#summary, "");
      say(this.#store, "This key does not show the store.");
      return;
    }
    const [frames, size] = [Number(store.frames), Number(store.bytes)];
    const free = store.free === null ? undefined : Number(store.free);
    const total = store.total === null ? undefined : Number(store.total);
    const room = free === undefined ? "" : `, ${bytes(free)} free`;
    say(this.#summary, `${counted(frames, "frame")}, ${bytes(size)} stored${room}`);
    if (this.#store.childElementCount === 0) {
      this.#store.append(
        element("p", { class: "place" }),
        element("div", { class: "room" }, element("div")),
        element("p"),
      );
    }
    const [place, bar, words] = this.#store.children;
    say(place!, store.place);
    const hasRoom = free !== undefined && total !== undefined && total > 0;
    bar!.toggleAttribute("hidden", !hasRoom);
    if (hasRoom) {
      const used = (1 - free / total) * 100;
      (bar!.firstElementChild as HTMLElement).style.width = `${used}%`;
      bar!.classList.toggle("short", used > 90);
    }
    const ofTotal = hasRoom ? ` of ${bytes(total)}` : "";
    const left = free === undefined ? "" : `; ${bytes(free)}${ofTotal} free`;
    say(words!, `${counted(frames, "frame")} in ${bytes(size)}${left}`);
  }

  #saySenders(senders: readonly Sender[], now: number): void {
    say(this.#toSenders, counted(senders.length, "sender"));
    if (senders.length === 0) {
      say(this.#senders, "Nobody is connected.");
      return;
    }
    // A new list only where something else is said: what is selected in it stays selected.
    const lines = senders.map((sender) => senderLines(sender, now));
    const text = JSON.stringify(lines);
    if (this.#senders.dataset["said"] === text) return;
    this.#senders.dataset["said"] = text;
    const list = element("ul", { class: "senders" });
    for (const [first, second] of lines) {
      list.append(
        element("li", {}, element("span", { text: first }), element("small", { text: second })),
      );
    }
    this.#senders.replaceChildren(list);
  }

  /** All problems that the server remembers, oldest first. */
  remember(problems: readonly Problem[]): void {
    const ordered = problems.toSorted((one, other) =>
      BigInt(one.time) < BigInt(other.time) ? 1 : -1,
    );
    this.#list.replaceChildren(...ordered.slice(0, most).map(problemItem));
    this.#countProblems();
  }

  /** One more. */
  add(problem: Problem): void {
    this.#list.prepend(problemItem(problem));
    while (this.#list.childElementCount > most) this.#list.lastElementChild?.remove();
    this.#countProblems();
    if (Date.now() - this.#announced < quiet) return;
    this.#announced = Date.now();
    announce(problem.message);
  }

  #countProblems(): void {
    const number = this.#list.childElementCount;
    say(this.#toProblems, number === 0 ? "No problems" : counted(number, "problem"));
    this.#toProblems.classList.toggle("bad", number > 0);
    if (number === 0) say(this.#problems, "None since the server started.");
    else if (this.#list.parentNode !== this.#problems) this.#problems.replaceChildren(this.#list);
  }
}

function senderLines(sender: Sender, now: number): readonly [string, string] {
  const since = nanoseconds(sender.since);
  const age =
    since === undefined ? "" : `, for ${duration(Math.max(0, now - milliseconds(since)))}`;
  const names = sender.sources.slice(0, 6).join(", ");
  const more = sender.sources.length > 6 ? ` and ${sender.sources.length - 6} more` : "";
  const key = sender.key === null ? "" : `, key ${sender.key}`;
  const software = sender.software === null ? "" : `, ${sender.software}`;
  return [
    `${sender.stream}: ${names}${more}`,
    `${sender.peer}${key}${software}${age}; ${count(sender.frames)} frames, ${bytes(sender.bytes)}`,
  ];
}

function problemItem({ time, code, message, stream, source }: Problem): HTMLElement {
  const at = nanoseconds(time);
  const where = [stream, source].filter((part) => part !== null).join(" / ");
  const item = element(
    "li",
    {},
    element("time", { text: at === undefined ? "" : clock(at).slice(0, 8) }),
    element("span", { text: message }),
  );
  if (at !== undefined) mark(item.firstElementChild!, "title", `${moment(at)} UTC`);
  if (where !== "") item.append(element("small", { text: where }));
  mark(item, "data-code", code);
  return item;
}
