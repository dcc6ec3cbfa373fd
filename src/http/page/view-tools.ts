/** Buttons that zoom the pictures of a view, and show one on the whole screen. */
/// <reference lib="dom" />
import { button, element, toggleFullScreen } from "./dom.ts";
import type { Picture } from "./picture.ts";
import type { PictureInput } from "./picture-input.ts";

const zoomFactor = 1.5;

/** A picture that the buttons act on. */
export interface ChosenPicture {
  readonly picture: Picture;
  readonly input: PictureInput;
}

/** @param chosen returns the picture to act on; pictures that share its viewport follow */
export function createViewTools(chosen: () => ChosenPicture | undefined): HTMLElement {
  const fullScreen = button("Full screen", () => toggleFullScreen(chosen()?.picture.element), {
    "aria-keyshortcuts": "f",
  });
  fullScreen.hidden = !document.fullscreenEnabled;
  return element(
    "div",
    { class: "view-tools" },
    element(
      "div",
      { class: "transport", role: "group", "aria-label": "Size of the picture" },
      button("−", () => chosen()?.input.zoom(1 / zoomFactor), { "aria-label": "Smaller" }),
      button("+", () => chosen()?.input.zoom(zoomFactor), { "aria-label": "Larger" }),
      button("Fit", () => chosen()?.picture.viewport.fit()),
      button("1:1", () => chosen()?.input.showSinglePixels(), {
        "aria-label": "1:1, single pixels",
      }),
    ),
    fullScreen,
  );
}
