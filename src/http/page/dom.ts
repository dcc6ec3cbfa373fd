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
  const created = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === false) continue;
    if (key === "text") created.textContent = String(value);
    else created.setAttribute(key, value === true ? "" : String(value));
  }
  created.append(...children);
  return created;
}

/** A button that does something. */
export function button(
  text: string,
  onClick: () => void,
  attributes: Attributes = {},
): HTMLButtonElement {
  const created = element("button", { type: "button", ...attributes, text });
  created.addEventListener("click", onClick);
  return created;
}

/** The element of the page with this id, of this kind. */
export function byId<Kind extends HTMLElement>(id: string, kind: new () => Kind): Kind {
  const target = document.getElementById(id);
  if (!(target instanceof kind)) throw new Error(`The page has no ${id}`);
  return target;
}

/** Says something else, if it is something else: an unchanged text costs no layout. */
export function setText(node: Element, text: string): void {
  if (node.textContent !== text) node.textContent = text;
}

/** Sets an attribute, if it changes. */
export function setAttribute(node: Element, name: string, value: string | number): void {
  const text = String(value);
  if (node.getAttribute(name) !== text) node.setAttribute(name, text);
}

/** The colour that the style sheet gives to a name. */
export function cssColour(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

/** Gives a canvas as many pixels as it has on the screen, and its measures in units of the style sheet. */
export function fitCanvas(
  canvas: HTMLCanvasElement,
): { context: CanvasRenderingContext2D; width: number; height: number } | undefined {
  const { clientWidth: width, clientHeight: height } = canvas;
  const context = canvas.getContext("2d");
  if (context === null || width === 0 || height === 0) return undefined;
  const ratio = window.devicePixelRatio || 1;
  const [pixelWidth, pixelHeight] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== pixelWidth || canvas.height !== pixelHeight) {
    canvas.width = pixelWidth;
    canvas.height = pixelHeight;
  }
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

/** What somebody who cannot see the page is told, and nothing is said twice in a row. */
export function announce(text: string): void {
  const announcer = document.getElementById("announcer");
  if (announcer !== null) setText(announcer, text);
}
