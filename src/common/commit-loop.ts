/**
 * Commits what a store has received, once for all connections that wait, and then acknowledges it to
 * each of them. The server has one loop for all clients, and a receiving client has one.
 */

/** A connection whose frames are committed. */
export interface CommitMember<Snapshot> {
  /** Whether to commit now: no more data came in this turn, or the receipt is due. */
  isFlushDue(): boolean;
  /** What a flush that begins now will cover. */
  readonly flushable: Snapshot;
  /** Acknowledges what a flush has covered: the value of `flushable` before it. */
  ack(flushed: Snapshot): void;
}

export class CommitLoop<Snapshot> {
  readonly #flush: () => Promise<boolean>;
  readonly #delayMs: () => number;
  readonly #waiting = new Set<CommitMember<Snapshot>>();
  /** Members whose frames may have been lost with a failed flush. */
  readonly #excluded = new WeakSet<CommitMember<Snapshot>>();
  #isScheduled = false;

  /**
   * @param flush flushes the store; returns whether it succeeded, and never rejects
   * @param delayMs returns the time to wait for more connections, in milliseconds; 0 for the next turn
   */
  constructor(flush: () => Promise<boolean>, delayMs: () => number = () => 0) {
    this.#flush = flush;
    this.#delayMs = delayMs;
  }

  /** Commits for `member` when that is due. */
  add(member: CommitMember<Snapshot>): void {
    this.#waiting.add(member);
    if (!this.#isScheduled) this.#schedule();
  }

  /** Forgets a member that is gone. */
  remove(member: CommitMember<Snapshot>): void {
    this.#waiting.delete(member);
  }

  /** Acknowledges nothing to `member` any more, because a flush of its frames has failed. */
  exclude(member: CommitMember<Snapshot>): void {
    this.#excluded.add(member);
  }

  /** Commits for these members at once, and acknowledges. */
  async commit(members: readonly CommitMember<Snapshot>[]): Promise<void> {
    const snapshots = members.map((member) => member.flushable);
    if (!(await this.#flush())) return;
    for (const [index, member] of members.entries()) {
      // A failing member commits once more. Frames of the failed flush are not in that commit.
      if (!this.#excluded.has(member)) member.ack(snapshots[index]!);
    }
  }

  #schedule(): void {
    this.#isScheduled = true;
    const delayMs = this.#delayMs();
    if (delayMs === 0) setImmediate(() => void this.#commitDue());
    else setTimeout(() => void this.#commitDue(), delayMs);
  }

  /** Commits for the members that are due. Runs again, each turn or after a delay, for the others. */
  async #commitDue(): Promise<void> {
    const due = [...this.#waiting].filter((member) => member.isFlushDue());
    for (const member of due) this.#waiting.delete(member);
    if (due.length > 0) await this.commit(due);
    this.#isScheduled = false;
    if (this.#waiting.size > 0) this.#schedule();
  }
}
