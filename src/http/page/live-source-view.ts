/** What shows the frames of one live source. */
/// <reference lib="dom" />
import type { SourceStateJson } from "./api.ts";
import type { LiveHeader } from "./live-frames.ts";
import type { LivePicture } from "./live-picture.ts";
import type { SourceName } from "./natural-order.ts";
import type { ShowResult } from "./picture.ts";

let lastId = 0;

/** Returns a number that no other view has. */
export function nextViewId(): number {
  return ++lastId;
}

export interface LiveSourceView {
  /** From `nextViewId`. */
  readonly id: number;
  readonly element: HTMLElement;
  readonly live: LivePicture;
  readonly name: SourceName;
  /** Whether it is on the screen, so that it needs frames. */
  isVisible: boolean;
  /** @param now server's time in ms since 1970 */
  update(state: SourceStateJson, now: number, tick: number): void;
  /** Shows the latest values. */
  draw(): void;
  /** Shows a frame, or why it cannot be shown. */
  showFrame(header: LiveHeader, bytes: Uint8Array<ArrayBuffer>): Promise<ShowResult>;
}
