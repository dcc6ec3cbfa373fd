/**
 * Those who look on. Each has a place of its own that is bounded: what it does not read is passed over for it,
 * and nobody else waits.
 */
import { FramesError } from "../errors.ts";
import type { Visitor } from "./access.ts";

/** So many look on at a time. */
const mostViewers = 256;

/** What waits to be read: by each one so many bytes, and of what is beyond that so many for all. */
const ownBytes = 1 << 20;
const commonBytes = 256 << 20;

/** How somebody looks on. */
export type ViewerKind = "events" | "mjpeg" | "page";

export const viewerKinds: readonly ViewerKind[] = ["events", "mjpeg", "page"];

/** Why somebody's looking on ends. */
export type End = "stopping" | "not-allowed" | "left";

export class Viewers {
  readonly #viewers = new Set<Viewer>();
  /** Frames that were passed over for slow ones, since the server began. */
  dropped = 0;
  #isOver = false;

  /**
   * Gives somebody a place.
   *
   * @throws {FramesError} `full`, or `stopping`
   */
  enter(kind: ViewerKind, visitor: Visitor): Viewer {
    if (this.#isOver) throw new FramesError("stopping");
    if (this.#viewers.size >= mostViewers) {
      throw new FramesError("full", `${mostViewers} look on already, which is the most`);
    }
    const viewer = new Viewer(kind, visitor, this);
    this.#viewers.add(viewer);
    return viewer;
  }

  leave(viewer: Viewer): void {
    this.#viewers.delete(viewer);
  }

  count(kind: ViewerKind): number {
    let count = 0;
    for (const viewer of this.#viewers) if (viewer.kind === kind) count++;
    return count;
  }

  /** Whether somebody may be given so many bytes more to read. */
  mayTake(viewer: Viewer, bytes: number): boolean {
    const own = viewer.held() + bytes;
    if (own <= ownBytes) return true;
    let others = 0;
    for (const one of this.#viewers) {
      if (one !== viewer) others += Math.max(0, one.held() - ownBytes);
    }
    // Alone, anybody may have one frame, however large.
    return others === 0 || others + own - ownBytes <= commonBytes;
  }

  /**
   * Ends them all: the server stops.
   *
   * @returns how many there were
   */
  end(): number {
    this.#isOver = true;
    const viewers = [...this.#viewers];
    for (const viewer of viewers) viewer.end("stopping");
    return viewers.length;
  }
}

/** One who looks on. */
export class Viewer {
  readonly kind: ViewerKind;
  readonly visitor: Visitor;
  readonly #viewers: Viewers;
  #isOver = false;
  readonly #forbid = () => this.end("not-allowed");
  /** Bytes that it was given and has not read. */
  held: () => number = () => 0;
  /** Called once, when it ends, whoever ends it. */
  onEnd: (why: End) => void = () => {};

  constructor(kind: ViewerKind, visitor: Visitor, viewers: Viewers) {
    this.kind = kind;
    this.visitor = visitor;
    this.#viewers = viewers;
    visitor.ended.addEventListener("abort", this.#forbid);
    if (visitor.ended.aborted) queueMicrotask(this.#forbid);
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  mayTake(bytes: number): boolean {
    return this.#viewers.mayTake(this, bytes);
  }

  /** Frames were passed over for it. */
  passedOver(frames: number): void {
    if (frames > 0) this.#viewers.dropped += frames;
  }

  end(why: End): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.visitor.ended.removeEventListener("abort", this.#forbid);
    this.#viewers.leave(this);
    this.onEnd(why);
  }
}
