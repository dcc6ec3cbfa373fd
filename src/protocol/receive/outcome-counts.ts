/** How the frames of a connection ended, counted in the order in which they did (SPEC section 6). */
import { FramesError } from "../../errors.ts";
import type { Outcome } from "../../frame.ts";
import type { Done } from "../../wire/messages.ts";

/** A frame that ended and whose outcome is not known yet, or not yet its turn. */
interface PendingOutcome {
  outcome: Outcome | "aborted" | undefined;
}

export class OutcomeCounts {
  readonly #counts: Done = { frames: 0, stored: 0, present: 0, refused: 0, aborted: 0 };
  readonly #pending: PendingOutcome[] = [];

  get counts(): Readonly<Done> {
    return this.#counts;
  }

  /** Frames that ended. */
  get endedCount(): number {
    return this.#counts.frames;
  }

  /** Frames from the first on whose outcome is known. */
  get knownCount(): number {
    return this.#counts.frames - this.#pending.length;
  }

  /** A frame ended. */
  add(outcome: Outcome | "aborted"): void {
    this.#counts.frames++;
    if (this.#pending.length === 0) this.#count(outcome);
    else this.#pending.push({ outcome });
  }

  /** A frame ended whose outcome is to come: it is told to what is returned. */
  addPending(): (outcome: Outcome) => void {
    const pending: PendingOutcome = { outcome: undefined };
    this.#counts.frames++;
    this.#pending.push(pending);
    return (outcome) => {
      pending.outcome = outcome;
      while (this.#pending[0]?.outcome !== undefined) this.#count(this.#pending.shift()!.outcome!);
    };
  }

  /** @throws {FramesError} `protocol` if END counts other frames */
  checkEnd(frames: number): void {
    if (frames === this.endedCount) return;
    throw new FramesError(
      "protocol",
      `Cannot accept END: it counts ${frames} frames, ${this.endedCount} came`,
    );
  }

  #count(outcome: Outcome | "aborted"): void {
    if (outcome instanceof FramesError) this.#counts.refused++;
    else this.#counts[outcome]++;
  }
}
