/** Makes and changes elements. What comes from strangers only ever becomes text. */
/// <reference lib="dom" />
/// <reference lib="dom.iterable" />

/** Attributes by name; `text` is what the element says, `undefined` and `false` leave an attribute out. */
export type Attributes = Readonly<Record<string, string | number | boolean | undefined>>;

/** Makes an element with its attributes and children. */
export function element<Name extends keyof HTMLElementTagNameMap>(
  name: Name,
  attributes: Attributes = {},
  ...children: readonly (Node | string)[]
): HTMLElementTagNameMap[Name] {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === false) continue;
    if (key === "text") made.textContent = String(value);
    else made.setAttribute(key, value === true ? "" : String(value));
  }
  made.append(...children);
  return made;
}

/** A button that does something. */
export function button(
  text: string,
  act: () => void,
  attributes: Attributes = {},
): HTMLButtonElement {
  const made = element("button", { type: "button", ...attributes, text });
  made.addEventListener("click", act);
  return made;
}

/** The element of the page with this id, of this kind. */
export function byId<Kind extends HTMLElement>(id: string, kind: new () => Kind): Kind {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new Error(`The page has no ${id}`);
  return found;
}

/** Says something else, if it is something else: an unchanged text costs no layout. */
export function say(node: Element, text: string): void {
  if (node.textContent !== text) node.textContent = text;
}

/** Sets an attribute, if it changes. */
export function mark(node: Element, name: string, value: string | number): void {
  const text = String(value);
  if (node.getAttribute(name) !== text) node.setAttribute(name, text);
}

/** The colour that the style sheet gives to a name. */
export function colourOf(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

/** Gives a canvas as many pixels as it has on the screen, and its measures in units of the style sheet. */
export function fitCanvas(
  canvas: HTMLCanvasElement,
): { pen: CanvasRenderingContext2D; width: number; height: number } | undefined {
  const { clientWidth: width, clientHeight: height } = canvas;
  const pen = canvas.getContext("2d");
  if (pen === null || width === 0 || height === 0) return undefined;
  const ratio = window.devicePixelRatio || 1;
  const [across, down] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== across || canvas.height !== down) {
    canvas.width = across;
    canvas.height = down;
  }
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  return { pen, width, height };
}

/** What somebody who cannot see the page is told, and nothing is said twice in a row. */
export function announce(text: string): void {
  const announcer = document.getElementById("announcer");
  if (announcer !== null) say(announcer, text);
}
