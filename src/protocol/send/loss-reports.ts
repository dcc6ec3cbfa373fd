/**
 * Losses to report to the server on one connection. LOST has no reply, so unconfirmed losses are
 * sent again on the next connection (SPEC section 8).
 */
import type { Frame, Loss } from "../../frame.ts";
import type { LostRange, OutgoingSource } from "./outgoing-source.ts";

interface SentReport {
  readonly source: OutgoingSource;
  readonly range: LostRange;
  /** Frames that had ended when LOST was sent. A receipt for a later frame confirms it. */
  readonly sentAfter: number;
}

/** Losses of one connection that no receipt has confirmed. */
export class LossReports {
  #pending: { source: OutgoingSource; range: LostRange }[] = [];
  #sent: SentReport[] = [];
  /**
   * Whether the last pending range may grow. A range sent on an earlier connection must be repeated
   * unchanged.
   */
  #canExtendLast = false;

  /** Queues a loss. Extends the last pending range if the loss continues it for the same reason. */
  add(source: OutgoingSource, { first, last, error, name }: Loss): void {
    const { error: code, message } = error.wireFields;
    const previous = this.#canExtendLast ? this.#pending.at(-1) : undefined;
    if (
      previous?.source === source &&
      (previous.range.name ?? name) === undefined &&
      previous.range.last === first - 1 &&
      previous.range.error === code &&
      previous.range.text === message
    ) {
      previous.range.last = last;
      return;
    }
    this.#pending.push({ source, range: { first, last, error: code, text: message, name } });
    this.#canExtendLast = true;
  }

  /** Queues a range that an earlier connection sent without confirmation. */
  requeue(source: OutgoingSource, range: LostRange): void {
    this.#pending.push({ source, range });
    this.#canExtendLast = false;
  }

  /**
   * Returns the losses to send now, and keeps them until a receipt confirms them.
   *
   * @param ended frames that have ended on this connection
   */
  drain(ended: number): readonly { source: OutgoingSource; range: LostRange }[] {
    if (this.#pending.length === 0) return this.#pending;
    const drained = this.#pending;
    this.#pending = [];
    for (const report of drained) this.#sent.push({ ...report, sentAfter: ended });
    return drained;
  }

  /** Drops the losses that a receipt for the first `frames` ended frames confirms. */
  ack(frames: number): void {
    if (this.#sent.length === 0) return;
    const firstUnconfirmed = this.#sent.findIndex(({ sentAfter }) => sentAfter >= frames);
    this.#sent = firstUnconfirmed < 0 ? [] : this.#sent.slice(firstUnconfirmed);
  }

  /** Returns unconfirmed losses to their sources when the connection broke. */
  returnToSources(): void {
    for (const { source, range } of [...this.#sent, ...this.#pending])
      source.unconfirmedLosses.push(range);
  }
}

/**
 * The frame suspected of ending the connection with the error `damaged`. A frame damaged three
 * times is given up (SPEC section 11, `garbled`), because it would break every connection.
 */
export class SuspectFrame {
  #source: OutgoingSource | undefined;
  #sequence = 0;

  set(source: OutgoingSource | undefined, sequence: number): void {
    this.#source = source;
    this.#sequence = sequence;
  }

  /**
   * Counts the damage against the suspected frame. Removes the frame from its source and returns it
   * once it was damaged too often. Call it after `returnToSources`, because it searches the
   * candidates.
   */
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
