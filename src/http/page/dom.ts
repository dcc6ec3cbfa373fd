/** Creates and changes elements. Text from the server is set as text, never as HTML. */
/// <reference lib="dom" />
/// <reference lib="dom.iterable" />

/** Attributes by name. `text` sets the text content; `undefined` and `false` omit the attribute. */
export type Attributes = Readonly<Record<string, string | number | boolean | undefined>>;

/** Creates an element with attributes and children. */
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

/** Creates a button that calls `onClick`. */
export function button(
  text: string,
  onClick: () => void,
  attributes: Attributes = {},
): HTMLButtonElement {
  const created = element("button", { type: "button", ...attributes, text });
  created.addEventListener("click", onClick);
  return created;
}

/**
 * Returns the element with this id.
 *
 * @throws {Error} if there is none of this type
 */
export function byId<Kind extends HTMLElement>(id: string, kind: new () => Kind): Kind {
  const target = document.getElementById(id);
  if (!(target instanceof kind)) throw new Error(`The page has no ${id}`);
  return target;
}

/** Sets the text if it differs, because setting it again would cost a layout. */
export function setText(node: Element, text: string): void {
  if (node.textContent !== text) node.textContent = text;
}

/** Sets the attribute if it differs. */
export function setAttribute(node: Element, name: string, value: string | number): void {
  const text = String(value);
  if (node.getAttribute(name) !== text) node.setAttribute(name, text);
}

/** Returns the value of a CSS colour variable. */
export function cssColour(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

/** Returns the device pixels of a CSS pixel. */
export function pixelRatio(): number {
  return window.devicePixelRatio || 1;
}

/** Returns the message of an error for the user. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : `${error}`;
}

/**
 * Matches a canvas to the device pixels and clears it. `width` and `height` are in CSS pixels.
 * Undefined while the canvas is not laid out.
 */
export function fitCanvas(
  canvas: HTMLCanvasElement,
): { context: CanvasRenderingContext2D; width: number; height: number } | undefined {
  const { clientWidth: width, clientHeight: height } = canvas;
  const context = canvas.getContext("2d");
  if (context === null || width === 0 || height === 0) return undefined;
  const ratio = pixelRatio();
  const [pixelWidth, pixelHeight] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== pixelWidth || canvas.height !== pixelHeight) {
    canvas.width = pixelWidth;
    canvas.height = pixelHeight;
  }
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

/** Announces a text to screen readers. Repeating the last text has no effect. */
export function announce(text: string): void {
  const announcer = document.getElementById("announcer");
  if (announcer !== null) setText(announcer, text);
}

/** Shows an element on the whole screen, or ends that. */
export function toggleFullScreen(target: Element | undefined): void {
  // The browser may refuse, and then says so itself.
  if (document.fullscreenElement !== null) void document.exitFullscreen().catch(() => {});
  else void target?.requestFullscreen().catch(() => {});
}
