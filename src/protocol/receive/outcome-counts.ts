/**
 * Counts how the frames of a connection ended, in the order in which they ended (SPEC section 6).
 */
import { FramesError } from "../../errors.ts";
import type { Outcome } from "../../frame.ts";
import type { Done } from "../../wire/messages.ts";

/** An ended frame that is not counted yet. Its outcome, or that of an earlier frame, is unknown. */
interface PendingOutcome {
  outcome: Outcome | "aborted" | undefined;
}

export class OutcomeCounts {
  readonly #counts: Done = { frames: 0, stored: 0, present: 0, refused: 0, aborted: 0 };
  readonly #pending: PendingOutcome[] = [];

  get counts(): Readonly<Done> {
    return this.#counts;
  }

  /** Frames that have ended. */
  get endedCount(): number {
    return this.#counts.frames;
  }

  /** Leading frames whose outcome is known. A receipt can count these. */
  get knownCount(): number {
    return this.#counts.frames - this.#pending.length;
  }

  /** Counts an ended frame with a known outcome. */
  add(outcome: Outcome | "aborted"): void {
    this.#counts.frames++;
    if (this.#pending.length === 0) this.#count(outcome);
    else this.#pending.push({ outcome });
  }

  /**
   * Counts an ended frame whose outcome is not known yet. Returns a function that takes the
   * outcome.
   */
  addPending(): (outcome: Outcome) => void {
    const pending: PendingOutcome = { outcome: undefined };
    this.#counts.frames++;
    this.#pending.push(pending);
    return (outcome) => {
      pending.outcome = outcome;
      while (this.#pending[0]?.outcome !== undefined) this.#count(this.#pending.shift()!.outcome!);
    };
  }

  /**
   * Compares END's count with the frames received.
   *
   * @throws {FramesError} `protocol` if they differ
   */
  checkEnd(frames: number): void {
    if (frames === this.endedCount) return;
    throw new FramesError(
      "protocol",
      `Cannot accept END: it counts ${frames} frames, ${this.endedCount} arrived`,
    );
  }

  #count(outcome: Outcome | "aborted"): void {
    if (outcome instanceof FramesError) this.#counts.refused++;
    else this.#counts[outcome]++;
  }
}
