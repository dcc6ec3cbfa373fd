/** What the keys do, in both views. They are listed in dialogs.ts. */
/// <reference lib="dom" />
import type { Dialogs } from "./dialogs.ts";
import type { LiveView } from "./live.ts";
import type { RecordedView } from "./recorded.ts";

export interface Controlled {
  readonly dialogs: Dialogs;
  readonly live: LiveView;
  readonly recorded: RecordedView;
  isRecorded(): boolean;
  togglePause(): void;
}

/** Listens for keys that nothing else on the page has use for. */
export function listenForKeys(page: Controlled): void {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (page.dialogs.isOpen || isTyping(event)) return;
    const act = page.isRecorded() ? recordedKey(page, event) : liveKey(page, event);
    if (act === undefined) return;
    event.preventDefault();
    act();
  });
}

function liveKey(page: Controlled, { key, target }: KeyboardEvent): (() => void) | undefined {
  switch (key) {
    case "?":
      return () => page.dialogs.showKeys();
    case "p":
      return () => page.live.nextPalette();
    case " ":
      // A button that has the focus is what the space bar presses.
      return isPressed(target) ? undefined : () => page.togglePause();
    default:
      return undefined;
  }
}

function recordedKey(
  { recorded, dialogs }: Controlled,
  { key, shiftKey, target }: KeyboardEvent,
): (() => void) | undefined {
  switch (key) {
    case "?":
      return () => dialogs.showKeys();
    case "p":
      return () => recorded.nextPalette();
    case " ":
      return isPressed(target) ? undefined : () => recorded.togglePlaying();
    case "ArrowLeft":
    case "ArrowDown":
      return isChoice(target) ? undefined : () => recorded.step(shiftKey ? -10 : -1);
    case "ArrowRight":
    case "ArrowUp":
      return isChoice(target) ? undefined : () => recorded.step(shiftKey ? 10 : 1);
    case "PageUp":
      return () => recorded.step(-10);
    case "PageDown":
      return () => recorded.step(10);
    case ",":
      return () => recorded.step(-1);
    case ".":
      return () => recorded.step(1);
    case "Home":
      return () => recorded.end(-1);
    case "End":
      return () => recorded.end(1);
    case "[":
      return () => recorded.chooseNext(-1);
    case "]":
      return () => recorded.chooseNext(1);
    case "+":
    case "=":
      return () => recorded.zoom(0.5);
    case "-":
      return () => recorded.zoom(2);
    case "0":
      return () => recorded.showAll();
    case "g":
      return () => recorded.askNumber();
    case "d":
      return () => recorded.download();
    case "Escape":
      return () => (location.hash = "#/");
    default:
      return undefined;
  }
}

function isTyping({ target, key }: KeyboardEvent): boolean {
  if (target instanceof HTMLSelectElement) return true;
  if (!(target instanceof HTMLInputElement)) return false;
  return !["radio", "checkbox"].includes(target.type) && key !== "Escape";
}

function isPressed(target: EventTarget | null): boolean {
  return target instanceof Element && target.closest("button, a, summary, input") !== null;
}

function isChoice(target: EventTarget | null): boolean {
  return target instanceof HTMLInputElement && target.type === "radio";
}
