/** The picture of a live source, and how current it is. */
/// <reference lib="dom" />
import type { LiveJson } from "./api.ts";
import { displayCount, displayTimeOfDay, parseNanoseconds, zoneName } from "./format.ts";
import type { LiveHeader } from "./live-frames.ts";
import { Picture, type PictureOptions, type ShowResult } from "./picture.ts";
import { PictureAge, type PictureState, type Standstill } from "./picture-age.ts";

export class LivePicture {
  readonly picture: Picture;
  readonly #age = new PictureAge();
  #header: LiveHeader | undefined;

  constructor(options: Omit<PictureOptions, "mode">) {
    const { stream, source } = options.source;
    this.picture = new Picture({ ...options, mode: "live" });
    this.picture.label = `${source} of ${stream}`;
  }

  /** Why the picture stands still; undefined if new frames are shown as they come. */
  set standstill(value: Standstill | undefined) {
    this.#age.standstill = value;
    this.#showBadge();
  }

  get state(): PictureState {
    return this.#age.state;
  }

  /** @param now server's time in ms since 1970 */
  update(latest: LiveJson, now: number): void {
    this.#age.update(latest, now);
  }

  /** Shows a frame, or why it cannot be shown. */
  async showFrame(header: LiveHeader, bytes: Uint8Array<ArrayBuffer>): Promise<ShowResult> {
    const { stream, source, type, raw, received } = header;
    const result = await this.picture.show({ bytes, type, raw });
    if (result === "nothing") return result;
    this.#header = header;
    this.#age.shownReceived = parseNanoseconds(received);
    this.picture.label = `${source} of ${stream}, ${frameCaption(header)}`;
    this.#showBadge();
    return result;
  }

  #showBadge(): void {
    const caption = this.#header === undefined ? "" : ` ${frameCaption(this.#header)}`;
    this.picture.badge = this.#age.standstill === "paused" ? `PAUSED${caption}` : undefined;
  }

  /** Shows nothing until the next frame, and frees the memory. */
  clear(): void {
    this.picture.clear();
    this.#header = undefined;
    this.#age.shownReceived = undefined;
  }

  close(): void {
    this.picture.close();
  }
}

/** Returns number and capture time: `frame 12 of 17:14:06.123 UTC`. */
function frameCaption({ number, captured }: LiveHeader): string {
  const at = parseNanoseconds(captured);
  const time = at === undefined ? "" : ` of ${displayTimeOfDay(at)} ${zoneName(at)}`;
  return `frame ${displayCount(number)}${time}`;
}
