/** Losses that the server is told of: LOST has no reply (SPEC section 8). */
import type { Frame, Loss } from "../../frame.ts";
import type { LostRange, OutgoingSource } from "./outgoing-source.ts";

interface SentReport {
  readonly source: OutgoingSource;
  readonly range: LostRange;
  /** Frames that had ended when it was told: a receipt for a later one covers it. */
  readonly sentAfter: number;
}

/** The losses of one connection, as long as the server may not have recorded them. */
export class LossReports {
  #pending: { source: OutgoingSource; range: LostRange }[] = [];
  #sent: SentReport[] = [];
  /** Whether the last one that waits may still grow: what was told before must be repeated as it was. */
  #canExtendLast = false;

  /** Numbers of `outlet` are lost. */
  add(source: OutgoingSource, { first, last, error }: Loss): void {
    const { error: code, message: message } = error.wireFields;
    const previous = this.#canExtendLast ? this.#pending.at(-1) : undefined;
    if (
      previous?.source === source &&
      previous.range.last === first - 1 &&
      previous.range.error === code &&
      previous.range.message === message
    ) {
      previous.range.last = last;
      return;
    }
    this.#pending.push({ source, range: { first, last, error: code, message } });
    this.#canExtendLast = true;
  }

  /** What was told on a connection before, and must be told again. */
  requeue(source: OutgoingSource, range: LostRange): void {
    this.#pending.push({ source, range });
    this.#canExtendLast = false;
  }

  /**
   * What is to be told now.
   *
   * @param ended frames that ended so far
   */
  drain(ended: number): readonly { source: OutgoingSource; range: LostRange }[] {
    if (this.#pending.length === 0) return this.#pending;
    const drained = this.#pending;
    this.#pending = [];
    for (const report of drained) this.#sent.push({ ...report, sentAfter: ended });
    return drained;
  }

  /** The first `frames` frames that ended are settled. */
  ack(frames: number): void {
    if (this.#sent.length === 0) return;
    const firstUnconfirmed = this.#sent.findIndex(({ sentAfter }) => sentAfter >= frames);
    this.#sent = firstUnconfirmed < 0 ? [] : this.#sent.slice(firstUnconfirmed);
  }

  /** The connection broke: what may not have been recorded is told again on the next. */
  returnToSources(): void {
    for (const { source, range } of [...this.#sent, ...this.#pending])
      source.unconfirmedLosses.push(range);
  }
}

/** The frame that ended a connection because its bytes came damaged, if one did. */
export class SuspectFrame {
  #source: OutgoingSource | undefined;
  #sequence = 0;

  /** It was this one. */
  set(source: OutgoingSource | undefined, sequence: number): void {
    this.#source = source;
    this.#sequence = sequence;
  }

  /** Once everything is back in its outlets: takes the frame out that is to be sent no more. */
  removeIfRepeated(): { source: OutgoingSource; frame: Frame } | undefined {
    const source = this.#source;
    if (source === undefined) return undefined;
    const { candidates } = source;
    const index = candidates.findIndex(({ frame }) => frame.sequence === this.#sequence);
    if (index < 0 || !source.countDamage(this.#sequence)) return undefined;
    const [candidate] = candidates.splice(index, 1);
    return { source, frame: candidate!.frame };
  }
}
