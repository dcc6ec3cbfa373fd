/** The controls of the recorded view: steps, playback, gaps, and where to go. */
/// <reference lib="dom" />
import { button, element, setAttribute, setText } from "./dom.ts";
import { speeds } from "./player.ts";

export interface TransportHandlers {
  goToEnd(direction: -1 | 1): void;
  step(by: number): void;
  goToGap(direction: -1 | 1): void;
  togglePlaying(): void;
  setSpeed(speed: number): void;
  /** Called with what the user typed: a number or a time. */
  goTo(text: string): void;
  zoom(factor: number): void;
  showAll(): void;
}

export class Transport {
  readonly element: HTMLElement;
  readonly #play: HTMLButtonElement;
  readonly #state = element("span", { class: "playing" });
  readonly #day = element("span", { class: "day" });
  readonly #time = element("span");
  readonly #moment: HTMLElement;
  readonly #speed = element("select", { "aria-label": "Speed" });
  readonly #message = element("p", { class: "message", role: "status", hidden: true });
  readonly #destination = element("input", {
    type: "text",
    "aria-label": "Frame number or time",
    placeholder: "number, 14:03 or yesterday 14:03",
    title: "A frame number or a time: 12, 14:03:05, 2:03 pm, yesterday 14:03, 2026-11-25 14:03",
    autocomplete: "off",
    spellcheck: "false",
  });

  constructor(handlers: TransportHandlers) {
    this.#play = button("Play", () => handlers.togglePlaying(), { "aria-keyshortcuts": "Space" });
    this.#moment = element("p", { class: "moment" }, this.#day, this.#time);
    for (const speed of speeds) {
      this.#speed.append(element("option", { value: speed, text: `${speed}×` }));
    }
    this.#speed.addEventListener("change", () => handlers.setSpeed(Number(this.#speed.value)));
    const form = element(
      "form",
      { class: "go" },
      this.#destination,
      element("button", { type: "submit", text: "Go" }),
    );
    this.#destination.addEventListener("mousedown", (event) => {
      if (document.activeElement === this.#destination) return;
      // The first click selects all, so that typing replaces it.
      event.preventDefault();
      this.focusDestination();
    });
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      handlers.goTo(this.#destination.value);
    });
    this.element = element(
      "div",
      { class: "controls" },
      this.#message,
      element(
        "div",
        { class: "transport steps", role: "group", "aria-label": "Steps" },
        button("|◀", () => handlers.goToEnd(-1), { "aria-label": "First", title: "First (Home)" }),
        button("◀", () => handlers.step(-1), {
          "aria-label": "Previous",
          title: "Previous (left)",
        }),
        this.#play,
        button("▶", () => handlers.step(1), { "aria-label": "Next", title: "Next (right)" }),
        button("▶|", () => handlers.goToEnd(1), { "aria-label": "Last", title: "Last (End)" }),
      ),
      this.#speed,
      element(
        "div",
        { class: "transport", role: "group", "aria-label": "Gaps" },
        button("◀ Gap", () => handlers.goToGap(-1), { "aria-label": "Previous gap" }),
        button("Gap ▶", () => handlers.goToGap(1), { "aria-label": "Next gap" }),
      ),
      this.#moment,
      this.#state,
      form,
      element(
        "div",
        { class: "transport zoom", role: "group", "aria-label": "Zoom of the timeline" },
        button("−", () => handlers.zoom(2), { "aria-label": "Zoom out" }),
        button("+", () => handlers.zoom(0.5), { "aria-label": "Zoom in" }),
        button("All", () => handlers.showAll(), { "aria-label": "Show all of the timeline" }),
      ),
    );
  }

  /** Shows day and time of the moment with the number of the frame. `at` is in ns since 1970. */
  showMoment(at: bigint, day: string, text: string): void {
    setAttribute(this.#moment, "data-at", `${at}`);
    setText(this.#day, day);
    setText(this.#time, text);
  }

  showPlaying(isPlaying: boolean, speed: number, direction: -1 | 1): void {
    setText(this.#play, isPlaying ? "Stop" : "Play");
    this.#speed.value = `${speed}`;
    const text = direction > 0 ? `playing at ${speed}×` : `playing backwards at ${speed}×`;
    setText(this.#state, isPlaying ? text : "paused");
  }

  /** Shows what the user should know of the last action; nothing if undefined. */
  showMessage(text: string | undefined): void {
    setText(this.#message, text ?? "");
    this.#message.hidden = text === undefined;
  }

  /** Lets the user type where to go. */
  focusDestination(): void {
    this.#destination.focus({ preventScroll: true });
    this.#destination.select();
  }

  /** Removes what was typed, which was of another stream. */
  clearDestination(): void {
    this.#destination.value = "";
  }

  /** Ends typing, so that keys control the view again. */
  leaveDestination(): void {
    this.#destination.blur();
  }
}
