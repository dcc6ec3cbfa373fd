/** Builds the status sent once a second over `/events`, and the live part of one source. */
import type { DiskSpace, StoreContents } from "../../store/store-contents.ts";
import type { SourceTotals } from "../../store/journal/source-totals.ts";
import type { Principal } from "../principal.ts";
import { toJson } from "../responses.ts";
import type { SourceStats, SourceSnapshot } from "./source-stats.ts";
import type { LiveSources } from "./live-sources.ts";

/**
 * Limit of sources in one status. Those that go on are listed before those that have ended, and the
 * first ones by name, so that they are the same from second to second.
 */
const maxStatusSources = 500;

/** Time after its last frame during which a source counts as live. */
const liveTimeoutMs = 300_000;

/** Content and free space of the store. `free` and `total` are null if unknown. */
export interface StoreStatus {
  readonly place: string;
  readonly frames: number;
  readonly bytes: number;
  readonly free: number | null;
  readonly total: number | null;
}

export class StatusReporter {
  readonly #liveSources: LiveSources;
  readonly #totals: SourceTotals;
  readonly #contents: StoreContents;
  readonly #connections: () => number;
  /** Cached status of the current second, for clients that may read everything. */
  #fullJson: string | undefined;
  #diskSpace: DiskSpace | undefined;
  #diskSpaceAt = -Infinity;
  readonly #unsubscribeTick: () => void;

  constructor(
    liveSources: LiveSources,
    totals: SourceTotals,
    contents: StoreContents,
    connections: () => number,
  ) {
    this.#liveSources = liveSources;
    this.#totals = totals;
    this.#contents = contents;
    this.#connections = connections;
    this.#unsubscribeTick = liveSources.onTick(() => (this.#fullJson = undefined));
  }

  /** Returns the status as JSON, limited to what the principal may read. */
  jsonFor(principal: Principal): string {
    if (!principal.canReadAll) return toJson(this.#createState(principal));
    return (this.#fullJson ??= toJson(this.#createState(principal)));
  }

  #createState(principal: Principal) {
    const { now } = this.#liveSources;
    const canReadAll = principal.canReadAll;
    const live = this.#liveSourcesOf(principal, now);
    const listed = live.slice(0, maxStatusSources);
    return {
      time: BigInt(now) * 1_000_000n,
      connections: canReadAll ? this.#connections() : null,
      store: canReadAll ? this.storeStatus() : null,
      sources: listed.flatMap((stats) => this.#sourceState(stats, now)),
      otherSources: live.length - listed.length,
      senders: canReadAll ? this.#liveSources.senders : [],
    };
  }

  #liveSourcesOf(principal: Principal, now: number): SourceStats[] {
    return [...this.#liveSources.all()]
      .filter(
        ({ stream, source, receivedAt }) =>
          now - receivedAt < liveTimeoutMs && principal.canRead(stream, source),
      )
      .sort(
        (a, b) =>
          Number(a.isEnded) - Number(b.isEnded) ||
          compare(a.stream, b.stream) ||
          compare(a.source, b.source),
      );
  }

  #sourceState(stats: SourceStats, now: number) {
    const state = stats.snapshot(now);
    if (state === undefined) return [];
    const { stream, source } = stats;
    const { frames, bytes, lost } = this.#totalsOf(stats);
    return [{ stream, source, ...state, frames, bytes, lost }];
  }

  /**
   * Returns totals over the whole journal.
   * Until the journal has been summed, returns the counts since the server started.
   */
  #totalsOf(stats: SourceStats): { frames: number; bytes: number; lost: number } {
    if (!this.#totals.isComplete) return stats;
    return this.#totals.source(stats.stream, stats.source) ?? stats;
  }

  /** Returns the state and history of a live source; null if it is not live. */
  liveSourceState(
    stream: string,
    source: string,
  ): (SourceSnapshot & { history: number[][] }) | null {
    const stats = this.#liveSources.get(stream, source);
    const { now } = this.#liveSources;
    if (stats === undefined || now - stats.receivedAt >= liveTimeoutMs) return null;
    const state = stats.snapshot(now);
    return state === undefined ? null : { ...state, history: stats.history };
  }

  /** Returns content and free space of the store. The disk is measured at most once a second. */
  storeStatus(): StoreStatus {
    const { now } = this.#liveSources;
    if (Math.abs(now - this.#diskSpaceAt) >= 1000) {
      this.#diskSpaceAt = now;
      this.#diskSpace = this.#measureDiskSpace();
    }
    const { location: place } = this.#contents;
    const { frames, bytes } = this.#totals;
    return {
      place,
      frames,
      bytes,
      free: this.#diskSpace?.free ?? null,
      total: this.#diskSpace?.total ?? null,
    };
  }

  /** Ignores errors here: the store reports an unreadable disk when it writes. */
  #measureDiskSpace(): DiskSpace | undefined {
    try {
      return this.#contents.diskSpace();
    } catch {
      return undefined;
    }
  }

  close(): void {
    this.#unsubscribeTick();
  }
}

function compare(one: string, other: string): number {
  return one < other ? -1 : one > other ? 1 : 0;
}
