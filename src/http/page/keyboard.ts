/** Keyboard shortcuts of both views. `dialogs.ts` lists them for the user. */
/// <reference lib="dom" />
import type { Dialogs } from "./dialogs.ts";
import type { LiveView } from "./live-view.ts";
import type { RecordedView } from "./recorded-view.ts";
import type { Viewport } from "./viewport.ts";

export interface KeyboardTarget {
  readonly dialogs: Dialogs;
  readonly live: LiveView;
  readonly recorded: RecordedView;
  isRecordedView(): boolean;
  togglePause(): void;
}

/** Whether the user moves the focus with the keyboard. A control that was clicked has no keys. */
let hasKeyboardFocus = true;

/** Handles shortcut keys, unless a dialog is open or the user is typing. */
export function listenForKeys(page: KeyboardTarget): void {
  document.addEventListener("pointerdown", () => (hasKeyboardFocus = false));
  document.addEventListener("keydown", (event) => {
    if (event.key === "Tab") hasKeyboardFocus = true;
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (page.dialogs.isOpen || isTyping(event)) return;
    const action = page.isRecordedView() ? recordedAction(page, event) : liveAction(page, event);
    if (action === undefined) return;
    event.preventDefault();
    action();
  });
}

function liveAction(
  page: KeyboardTarget,
  { key, target }: KeyboardEvent,
): (() => void) | undefined {
  switch (key) {
    case "?":
      return () => page.dialogs.showShortcuts();
    case "p":
      return () => page.live.nextPalette();
    case "f":
      return () => page.live.toggleFullScreen();
    case "[":
      return () => page.live.goToAdjacent(-1);
    case "]":
      return () => page.live.goToAdjacent(1);
    case "Escape":
      return page.live.isCloseUp ? () => goBack(page.live.viewport) : undefined;
    case " ":
      // Space activates the focused control.
      return isActivatable(target) ? undefined : () => page.togglePause();
    default:
      return undefined;
  }
}

function recordedAction(
  { recorded, dialogs }: KeyboardTarget,
  { key, shiftKey, target }: KeyboardEvent,
): (() => void) | undefined {
  switch (key) {
    case "?":
      return () => dialogs.showShortcuts();
    case "p":
      return () => recorded.nextPalette();
    case "f":
      return () => recorded.toggleFullScreen();
    case " ":
      return isActivatable(target) ? undefined : () => recorded.togglePlaying();
    case "ArrowLeft":
    case "ArrowDown":
      return isRadio(target) ? undefined : () => recorded.step(shiftKey ? -10 : -1);
    case "ArrowRight":
    case "ArrowUp":
      return isRadio(target) ? undefined : () => recorded.step(shiftKey ? 10 : 1);
    case "PageUp":
      return () => recorded.step(-10);
    case "PageDown":
      return () => recorded.step(10);
    case ",":
      return () => recorded.step(-1);
    case ".":
      return () => recorded.step(1);
    case "Home":
      return () => recorded.goToEnd(-1);
    case "End":
      return () => recorded.goToEnd(1);
    case "[":
      return () => recorded.chooseAdjacent(-1);
    case "]":
      return () => recorded.chooseAdjacent(1);
    case "+":
    case "=":
      return () => recorded.zoom(0.5);
    case "-":
      return () => recorded.zoom(2);
    case "0":
      return () => recorded.showAll();
    case "g":
      return () => recorded.focusDestination();
    case "j":
      return () => recorded.play(-1);
    case "k":
      return () => recorded.stop();
    case "l":
      return () => recorded.play(1);
    case "n":
      return () => recorded.goToGap(1);
    case "N":
      return () => recorded.goToGap(-1);
    case "d":
      return () => recorded.download();
    case "Escape":
      return () => goBack(recorded.viewport);
    default:
      return undefined;
  }
}

/** Shows the whole pictures again. If they are whole, goes to the wall. */
function goBack(viewport: Viewport): void {
  if (viewport.isFit) location.hash = "#/";
  else viewport.fit();
}

function isTyping({ target, key }: KeyboardEvent): boolean {
  if (target instanceof HTMLSelectElement) return true;
  if (!(target instanceof HTMLInputElement)) return false;
  return !["radio", "checkbox"].includes(target.type) && key !== "Escape";
}

function isActivatable(target: EventTarget | null): boolean {
  return isFocusedByKey(target) && target.closest("button, a, summary, input") !== null;
}

function isRadio(target: EventTarget | null): boolean {
  return isFocusedByKey(target) && target.matches("[type=radio]");
}

function isFocusedByKey(target: EventTarget | null): target is Element {
  return hasKeyboardFocus && target instanceof Element;
}
