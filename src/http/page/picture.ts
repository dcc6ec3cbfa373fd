/** Draws frames on a canvas, and shows the value of the pixel under the pointer. */
/// <reference lib="dom" />
import { type PaletteName, paletteNames } from "../picture/palette.ts";
import {
  announce,
  button,
  element,
  messageOf,
  pixelRatio,
  setAttribute,
  setText,
  toggleFullScreen,
} from "./dom.ts";
import { codecOfType, type VideoCodec } from "../../video/nal-units.ts";
import type { FrameDecoder } from "./frame-decoder.ts";
import { type EncodedFrame, FrameImage, type ReducedFrame } from "./frame-image.ts";
import { keyOf, type SourceName } from "./natural-order.ts";
import { PaletteScale } from "./palette-scale.ts";
import type { Preferences } from "./preferences.ts";
import { VideoPlayer } from "./video-player.ts";
import { type PicturePlacement, type Point, type PixelSize, Viewport } from "./viewport.ts";

/** Device pixels per pixel of the picture from which on single pixels are shown without smoothing. */
const pixelatedScale = 1.5;

export interface PictureOptions {
  readonly decoder: FrameDecoder;
  readonly preferences: Preferences;
  /** Source that the palette is remembered for. */
  readonly source: SourceName;
  /** `live` smooths the range of grey values from frame to frame. */
  readonly mode: "live" | "stored";
  /** Shared by pictures that show the same part. */
  readonly viewport?: Viewport;
}

/** `nothing` if the frame before it is still shown. */
export type ShowResult = "shown" | "nothing" | "error";

export class Picture {
  /** Canvas and overlays. */
  readonly element: HTMLElement;
  readonly canvas = element("canvas", { role: "img" });
  /** Colour scale; hidden unless the image is grey. */
  readonly scale: PaletteScale;
  readonly viewport: Viewport;
  readonly #options: PictureOptions;
  readonly #key: string;
  readonly #context: CanvasRenderingContext2D;
  readonly #crosshair = element("div", { class: "cross", hidden: true });
  readonly #value = element("div", { class: "value", hidden: true });
  readonly #note = element("p", { class: "note", hidden: true });
  readonly #badge = element("p", { class: "badge", hidden: true });
  readonly #fullScreenLabel = element("span");
  readonly #observer = new ResizeObserver(() => this.#draw());
  readonly #onViewChange = (): void => this.#draw();
  /** Least time between frames that are shown. */
  minIntervalMs = 0;
  #drawnAt = -Infinity;
  #player: VideoPlayer | undefined;
  #isClosed = false;
  #frame: FrameImage | undefined;
  #palette: PaletteName | undefined;
  #isRangeFixed = false;
  /** The reduced frame that is decoded again. */
  #refined: FrameImage | undefined;
  /** Whether the value under the cursor is announced when it is known. */
  #mustAnnounce = false;

  constructor(options: PictureOptions) {
    this.#options = options;
    this.#key = keyOf(options.source);
    this.#palette = options.preferences.palette(this.#key);
    this.viewport = options.viewport ?? new Viewport();
    this.viewport.subscribe(this.#onViewChange);
    this.#context = this.canvas.getContext("2d")!;
    this.element = element(
      "div",
      { class: "picture" },
      this.canvas,
      this.#crosshair,
      this.#value,
      this.#badge,
      this.#note,
      element(
        "div",
        { class: "full-screen-bar" },
        this.#fullScreenLabel,
        button("Exit", () => toggleFullScreen(undefined), { "aria-label": "Exit full screen" }),
      ),
    );
    this.scale = new PaletteScale(
      (name) => void this.#setPalette(name),
      (isFixed) => (this.#isRangeFixed = isFixed),
    );
    this.#observer.observe(this.canvas);
  }

  /** Frees the memory. The picture must not be used again. */
  close(): void {
    this.#isClosed = true;
    this.#player?.close();
    this.#observer.disconnect();
    this.viewport.unsubscribe(this.#onViewChange);
    this.#frame?.close();
    this.#frame = undefined;
  }

  /** Description for screen readers, and for all on the whole screen. */
  set label(text: string) {
    setAttribute(this.canvas, "aria-label", text);
    setText(this.#fullScreenLabel, text);
  }

  /** Text on the picture that says that it stands still; undefined if it does not. */
  set badge(text: string | undefined) {
    setText(this.#badge, text ?? "");
    this.#badge.hidden = text === undefined;
  }

  /** Size of the frame shown. */
  get size(): PixelSize | undefined {
    return this.#frame;
  }

  /** Size of the canvas in device pixels. */
  get box(): PixelSize {
    return this.canvas;
  }

  /** Device pixels that the whole frame is shown in; undefined if its single pixels are needed. */
  get #room(): PixelSize | undefined {
    const { isFit, cursor } = this.viewport;
    const { width, height } = this.box;
    return isFit && cursor === undefined && width > 0 ? { width, height } : undefined;
  }

  /**
   * Shows a frame, or an error message if that fails. Frames of encoded video are decoded in the order
   * of calls. `nothing` changes if it is one that the decoder only needs for others.
   */
  async show(frame: EncodedFrame): Promise<ShowResult> {
    try {
      const image = await this.#decode(frame);
      if (image === undefined) return "nothing";
      if (performance.now() - this.#drawnAt < this.minIntervalMs) {
        image.close();
        return "nothing";
      }
      this.#replace(image);
    } catch (error) {
      this.showError(messageOf(error));
      return "error";
    }
    return "shown";
  }

  /** Shows a picture of a video. Closes it when it is no longer needed. */
  showVideoFrame(frame: VideoFrame): void {
    this.#replace(new FrameImage(frame));
  }

  async #decode(frame: EncodedFrame): Promise<FrameImage | undefined> {
    const codec = codecOfType(frame.type);
    if (codec !== undefined) {
      const image = await this.#playerFor(codec).decode(frame.bytes);
      return image === undefined ? undefined : new FrameImage(image);
    }
    const followed = this.#options.mode === "live" ? "follow" : "fresh";
    return await this.#options.decoder.decode(frame, {
      palette: this.#palette,
      previousRange: this.#frame?.coloured?.range,
      rangeMode: this.#isRangeFixed ? "keep" : followed,
      room: this.#room,
    });
  }

  /** Decodes a reduced frame again, for more of its pixels. */
  async #refine(frame: FrameImage, { encoded }: ReducedFrame): Promise<void> {
    if (this.#refined === frame) return;
    this.#refined = frame;
    try {
      this.#replaceIfShown(frame, await this.#decode(encoded));
    } catch (error) {
      // A newer frame may have come meanwhile.
      if (this.#frame === frame) this.showError(messageOf(error));
    }
  }

  #playerFor(codec: VideoCodec): VideoPlayer {
    if (this.#player?.codec === codec) return this.#player;
    this.#player?.close();
    return (this.#player = new VideoPlayer(codec));
  }

  /** Shows an error message instead of an image, and nothing of the image before it. */
  showError(text: string): void {
    this.clear();
    setText(this.#note, text);
    this.#note.hidden = false;
  }

  /** Shows nothing, and frees the memory of the image. */
  clear(): void {
    this.#frame?.close();
    this.#frame = undefined;
    this.scale.hide();
    this.#note.hidden = true;
    this.#draw();
  }

  /** Selects the next palette, if the image is grey. */
  nextPalette(): void {
    const palette = this.#frame?.coloured?.palette;
    if (palette === undefined) return;
    const index = paletteNames.indexOf(palette);
    void this.#setPalette(paletteNames[(index + 1) % paletteNames.length]!);
  }

  async #setPalette(palette: PaletteName): Promise<void> {
    this.#palette = palette;
    this.#options.preferences.setPalette(this.#key, palette);
    const frame = this.#frame;
    if (frame !== undefined) this.#replaceIfShown(frame, await frame.recolour(palette));
  }

  /** Shows another image of a frame, unless a newer frame has come meanwhile. */
  #replaceIfShown(frame: FrameImage, image: FrameImage | undefined): void {
    if (image === undefined) return;
    if (this.#frame === frame) this.#replace(image);
    else image.close();
  }

  #replace(frame: FrameImage): void {
    if (this.#isClosed) return frame.close();
    this.#frame?.close();
    this.#drawnAt = performance.now();
    this.#frame = frame;
    this.#note.hidden = true;
    if (frame.coloured === undefined) this.scale.hide();
    else this.scale.show(frame.coloured.palette, frame.coloured.range);
    this.element.style.setProperty("--ratio", `${frame.width / frame.height}`);
    this.#draw();
  }

  /** Puts the cursor on the pixel at a position of the window, if there is one. */
  pointAt(clientX: number, clientY: number): void {
    const { left, top } = this.canvas.getBoundingClientRect();
    const ratio = pixelRatio();
    const place = this.#placement;
    if (place === undefined) return;
    const { width, height } = this.#frame!;
    const x = ((clientX - left) * ratio - place.left) / (width * place.scale);
    const y = ((clientY - top) * ratio - place.top) / (height * place.scale);
    const isInside = x >= 0 && x < 1 && y >= 0 && y < 1;
    this.viewport.cursor = isInside ? { x, y } : undefined;
  }

  /** Puts the cursor on the pixel in the middle of what is shown. */
  pointAtMiddle(): void {
    if (this.viewport.isFit) {
      this.viewport.cursor = { x: 0.5, y: 0.5 };
      return;
    }
    const { left, top, width, height } = this.canvas.getBoundingClientRect();
    this.pointAt(left + width / 2, top + height / 2);
  }

  /** Moves the cursor by pixels of the picture, and the picture if the cursor leaves the box. */
  moveCursor(x: number, y: number): void {
    const { cursor } = this.viewport;
    const frame = this.#frame;
    if (cursor === undefined || frame === undefined) return;
    const pixel = pixelAt(cursor, frame);
    const clamp = (at: number, length: number): number => Math.max(0, Math.min(length - 1, at));
    this.viewport.cursor = {
      x: (clamp(pixel.x + x, frame.width) + 0.5) / frame.width,
      y: (clamp(pixel.y + y, frame.height) + 0.5) / frame.height,
    };
    this.#scrollToCursor();
    this.announceValue();
  }

  /** Announces the value under the cursor to screen readers, as soon as it is known. */
  announceValue(): void {
    this.#mustAnnounce = true;
    this.#draw();
  }

  #scrollToCursor(): void {
    const place = this.#placement;
    const { cursor } = this.viewport;
    if (place === undefined || cursor === undefined) return;
    const { width, height } = this.#frame!;
    const beyond = (at: number, length: number): number =>
      at < 0 ? -at : at > length ? length - at : 0;
    const x = beyond(place.left + cursor.x * width * place.scale, this.box.width);
    const y = beyond(place.top + cursor.y * height * place.scale, this.box.height);
    if (x !== 0 || y !== 0) this.viewport.panBy(x, y, this.#frame!, this.box);
  }

  get #placement(): PicturePlacement | undefined {
    const { width, height } = this.box;
    if (this.#frame === undefined || width === 0 || height === 0) return undefined;
    return this.viewport.place(this.#frame, this.box);
  }

  #draw(): void {
    const { canvas } = this;
    const ratio = pixelRatio();
    const [width, height] = [canvas.clientWidth, canvas.clientHeight].map((length) =>
      Math.round(length * ratio),
    ) as [number, number];
    if (canvas.width !== width || canvas.height !== height) {
      canvas.width = width;
      canvas.height = height;
    }
    const context = this.#context;
    context.clearRect(0, 0, width, height);
    const place = this.#placement;
    if (place !== undefined) {
      const frame = this.#frame!;
      const { left, top, scale } = place;
      context.imageSmoothingEnabled = scale < pixelatedScale;
      context.drawImage(frame.image, left, top, frame.width * scale, frame.height * scale);
      const { reduced } = frame;
      const isEnough =
        reduced === undefined || (this.#room !== undefined && scale <= reduced.scale);
      if (!isEnough) void this.#refine(frame, reduced);
    }
    this.element.classList.toggle("empty", place === undefined);
    this.element.classList.toggle("zoomed", !this.viewport.isFit);
    this.#showValue(place);
  }

  /** Shows the value of the pixel under the cursor, unless the frame is decoded for it first. */
  #showValue(place: PicturePlacement | undefined): void {
    const { cursor } = this.viewport;
    const frame = this.#frame;
    const isShown =
      cursor !== undefined &&
      place !== undefined &&
      frame !== undefined &&
      frame.reduced === undefined;
    this.#crosshair.hidden = !isShown;
    this.#value.hidden = !isShown;
    if (cursor === undefined) this.#mustAnnounce = false;
    if (!isShown) return;
    const { x, y } = pixelAt(cursor, frame);
    const ratio = pixelRatio();
    this.#crosshair.style.left = `${(place.left + (x + 0.5) * place.scale) / ratio}px`;
    this.#crosshair.style.top = `${(place.top + (y + 0.5) * place.scale) / ratio}px`;
    setText(this.#value, `${x}, ${y}: ${frame.valueAt(x, y)}`);
    if (this.#mustAnnounce) announce(this.#value.textContent);
    this.#mustAnnounce = false;
  }
}

/** Returns the pixel at a point that is given as shares of width and height. */
function pixelAt({ x, y }: Point, { width, height }: PixelSize): Point {
  return {
    x: Math.max(0, Math.min(width - 1, Math.floor(x * width))),
    y: Math.max(0, Math.min(height - 1, Math.floor(y * height))),
  };
}
