/** Playback of the latest frames that leaves out what a decoder cannot use. */
import { FramesError } from "../../errors.ts";
import type { Frame } from "../../frame.ts";
import type { Playback, PlaybackFrame, PlaybackItem } from "../../protocol/playback/playback.ts";
import { pictureKind, type PictureKind } from "../../video/nal-units.ts";
import { PictureGate } from "../../video/picture-gate.ts";
import { codecOf } from "../../video/picture-head.ts";
import type { JournaledFrame } from "./journaled-frame.ts";

/**
 * Reports pictures of encoded video as dropped that need a dropped one. It comes last, because the
 * frames of a remote store are read only when they were fetched.
 */
export class DecodablePlayback implements Playback {
  readonly #playback: Playback;
  /** Gates of the sources of encoded video. */
  readonly #gates = new Map<string, PictureGate>();

  /** @param playback yields frames of a store, and marks pictures after dropped ones */
  constructor(playback: Playback) {
    this.#playback = playback;
  }

  get position(): number {
    return this.#playback.position;
  }

  get isBusy(): boolean {
    return this.#playback.isBusy;
  }

  get isEnded(): boolean {
    return this.#playback.isEnded;
  }

  next(): PlaybackItem | undefined {
    const item = this.#playback.next();
    if (item?.type !== "frame" || item.frame.isKey === undefined) return item;
    const { source, position, frame } = item;
    const gate = this.#gateOf(source.name);
    if (item.isAfterHole === true) gate.close();
    if (gate.admits(frame.isKey, () => readKind(frame))) return item;
    const range = { first: frame.sequence, last: frame.sequence };
    const error = new FramesError("dropped", "a frame that it needs was dropped");
    return { type: "lost", source, position, cursor: undefined, ...range, error };
  }

  #gateOf(source: string): PictureGate {
    return this.#gates.getOrInsertComputed(source, () => new PictureGate());
  }

  onReadError(item: PlaybackFrame, error: FramesError): PlaybackItem | undefined {
    if (item.frame.isKey !== undefined) this.#gateOf(item.source.name).close();
    return this.#playback.onReadError(item, error);
  }
}

/** Reads the kind of a picture from its first bytes; `undefined` if they are not at hand. */
export function readKind(frame: Frame): PictureKind | undefined {
  const codec = codecOf(undefined, frame.name);
  const head = (frame as JournaledFrame).readHead();
  return codec === undefined || head === undefined ? undefined : pictureKind(head, codec);
}
