/** Asks the server which frames it has stored, before they are sent (SPEC section 8). */
import { checksum } from "../../common/checksum.ts";
import { asFramesError, FramesError } from "../../errors.ts";
import type { Frame, OfferStatus } from "../../frame.ts";
import { maxOfferedFrames, type OfferEntry, offerStatusByLetter } from "../../wire/messages.ts";
import type { Candidate, OutgoingSource } from "./outgoing-source.ts";

/** Limit of the JSON in one OFFER, in bytes; the protocol allows 64 KiB. */
const maxOfferJsonBytes = 60_000;

/**
 * Upper bounds in bytes of JSON: for an entry without its name, and for one character of the name.
 */
const maxEntryBytes = 80;
const maxCharacterBytes = 6;

/**
 * Limits of the payload in one OFFER and in all unanswered OFFERs, in bytes. They apply to offers
 * with CRC-32: the server may read the stored frames to compare them, and it serves no other client
 * meanwhile.
 */
const maxOfferPayloadBytes = 48 << 20;
const maxUnansweredBytes = 4 * maxOfferPayloadBytes;

/** Frames read at the same time for their CRC-32. */
const maxConcurrentReads = 4;

/** Unanswered OFFERs above which the next OFFER must be full. */
const maxPartialOffers = 2;

/** Frames in a full OFFER; about as many as its JSON holds with names of usual length. */
const fullOfferFrames = 500;

/** Answer about a frame that the server does not want. */
export type FoundStatus = Exclude<OfferStatus, "needsChecksum" | "wanted">;

/** An offered frame that the server does not want. */
export interface FoundFrame {
  readonly source: OutgoingSource;
  readonly candidate: Candidate;
  readonly status: FoundStatus;
}

/** Called when a frame was read for its CRC-32, or reading it has failed. */
type OnRead = (source: OutgoingSource, frame: Frame, failure: FramesError | undefined) => void;

/** The offers of one connection. */
export class Offers {
  readonly #alwaysChecksum: boolean;
  readonly #onRead: OnRead;
  readonly #unanswered: { source: OutgoingSource; candidates: Candidate[] }[] = [];
  readonly #readQueue: { source: OutgoingSource; candidate: Candidate }[] = [];
  readonly #reading = new Set<{ source: OutgoingSource; candidate: Candidate }>();
  /** Frames in unanswered OFFERs, and their payload bytes. */
  #offeredFrames = 0;
  #offeredBytes = 0;
  /** Wanted frames that are not begun yet. */
  #wantedFrames = 0;
  #isAbandoned = false;

  /** @param alwaysChecksum whether to offer every frame with its CRC-32 */
  constructor(alwaysChecksum: boolean, onRead: OnRead) {
    this.#alwaysChecksum = alwaysChecksum;
    this.#onRead = onRead;
  }

  /** Whether an OFFER is unanswered. */
  get hasUnanswered(): boolean {
    return this.#unanswered.length > 0;
  }

  /** Whether the source should provide more candidates. */
  wantsCandidates({ candidates }: OutgoingSource): boolean {
    const pendingCandidates =
      this.#offeredFrames + this.#readQueue.length + this.#reading.size + this.#wantedFrames;
    return (
      candidates.length < fullOfferFrames &&
      pendingCandidates + candidates.length < maxOfferedFrames
    );
  }

  /**
   * Returns the candidates of the source that the caller must offer now. One SOURCE suits all of
   * them. With `alwaysChecksum`, candidates are read first.
   */
  offer(source: OutgoingSource): readonly Candidate[] {
    if (this.#alwaysChecksum) this.#queueUnread(source);
    if (this.#alwaysChecksum && this.#offeredBytes >= maxUnansweredBytes) return [];
    if (source.candidates.length === 0) return [];
    const candidates = this.#nextBatch(source);
    if (candidates.length === 0) return candidates;
    this.#offeredFrames += candidates.length;
    this.#offeredBytes += payloadBytes(candidates);
    source.pendingCandidates += candidates.length;
    this.#unanswered.push({ source, candidates });
    return candidates;
  }

  #nextBatch(source: OutgoingSource): Candidate[] {
    const { candidates } = source;
    // No SOURCE may come before the end of a frame.
    const next = candidates[0]!;
    if (source.large !== undefined && !source.isDeclaredFor(next.frame)) return [];
    let count = 0;
    let bytes = 0;
    let payload = 0;
    const capacity = maxOfferedFrames - this.#offeredFrames;
    while (count < candidates.length && count < capacity) {
      const { frame } = candidates[count]!;
      const { name, size } = frame;
      const isOther =
        frame.revises !== next.frame.revises ||
        source.streamNameOf(frame) !== source.streamNameOf(next.frame);
      if (isOther) return candidates.splice(0, count);
      bytes += maxEntryBytes + maxCharacterBytes * name.length;
      payload += size;
      const isFull =
        bytes > maxOfferJsonBytes || (this.#alwaysChecksum && payload > maxOfferPayloadBytes);
      if (isFull && count > 0) return candidates.splice(0, count);
      count++;
    }
    // A partial OFFER waits for more candidates while the connection has other work, so that OFFERs
    // are fuller.
    const moreMayCome = source.hasMore || this.#readQueue.length + this.#reading.size > 0;
    const hasNoneToSend = source.wanted.length === 0 || this.mustWait(source);
    const isUrgent = this.#unanswered.length < maxPartialOffers && hasNoneToSend;
    if (!isUrgent && moreMayCome && count < Math.min(capacity, fullOfferFrames)) return [];
    return candidates.splice(0, count);
  }

  /** Reads the candidates whose CRC-32 is unknown. */
  #queueUnread(source: OutgoingSource): void {
    const unread = source.candidates.filter(({ crc }) => crc === undefined);
    if (unread.length === 0) return;
    source.candidates = source.candidates.filter(({ crc }) => crc !== undefined);
    for (const candidate of unread) this.#queueRead(source, candidate);
  }

  #queueRead(source: OutgoingSource, candidate: Candidate): void {
    source.pendingCandidates++;
    this.#readQueue.push({ source, candidate });
    if (this.#reading.size < maxConcurrentReads) void this.#readNext();
  }

  async #readNext(): Promise<void> {
    const next = this.#readQueue.shift();
    if (next === undefined) return;
    const { source, candidate } = next;
    this.#reading.add(next);
    let failure: FramesError | undefined;
    let crc: number | undefined;
    try {
      if (!source.isStopped) crc = await checksum(candidate.frame);
    } catch (error) {
      failure = asFramesError(error, "unreadable");
    }
    // The connection broke meanwhile: the candidate is back in its source and must not be changed.
    if (this.#isAbandoned) return;
    candidate.crc = crc;
    this.#reading.delete(next);
    source.pendingCandidates--;
    if (source.isStopped) failure = undefined;
    else if (failure === undefined) source.candidates.push(candidate);
    this.#onRead(source, candidate.frame, failure);
    void this.#readNext();
  }

  /**
   * Handles ANSWER. Returns the frames that the server does not want.
   *
   * @throws {FramesError} `protocol` if it does not match the oldest unanswered OFFER
   */
  onAnswer(id: number, letters: string): readonly FoundFrame[] {
    const [offer] = this.#unanswered;
    if (offer?.source.id !== id || offer.candidates.length !== letters.length) {
      throw new FramesError("protocol", "Cannot accept ANSWER: it does not match the OFFER");
    }
    const { source, candidates } = offer;
    const statuses = candidates.map(({ crc }, index) => {
      const status = offerStatusByLetter.get(letters[index]!);
      if (status !== undefined && (status !== "needsChecksum" || crc === undefined)) return status;
      throw new FramesError("protocol", `Cannot accept ANSWER: it says ${letters[index]}`);
    });
    this.#unanswered.shift();
    this.#offeredBytes -= payloadBytes(candidates);
    this.#offeredFrames -= candidates.length;
    source.pendingCandidates -= candidates.length;
    const found: FoundFrame[] = [];
    for (let index = 0; index < candidates.length; index++) {
      const candidate = candidates[index]!;
      const status = statuses[index]!;
      if (status === "needsChecksum") this.#queueRead(source, candidate);
      else if (status !== "wanted") found.push({ source, candidate, status });
      else if (!source.isStopped) this.addWanted(source, candidate.frame);
    }
    return found;
  }

  /** Queues a frame to be sent. Pictures of encoded video are sent in their order. */
  addWanted({ wanted }: OutgoingSource, frame: Frame): void {
    this.#wantedFrames++;
    if (frame.isKey === undefined) return void wanted.push(frame);
    const before = wanted.findLastIndex(({ sequence }) => sequence < frame.sequence);
    wanted.splice(before + 1, 0, frame);
  }

  /** Whether the next wanted picture of a source waits for the answer about an earlier one. */
  mustWait(source: OutgoingSource): boolean {
    const next = source.wanted[0];
    if (next?.isKey === undefined) return false;
    const isEarlier = ({ frame }: Candidate) => frame.sequence < next.sequence;
    const isOfSource = (item: { source: OutgoingSource }) => item.source === source;
    return (
      source.candidates.some(isEarlier) ||
      this.#unanswered.some((offer) => isOfSource(offer) && offer.candidates.some(isEarlier)) ||
      [...this.#reading, ...this.#readQueue].some(
        (item) => isOfSource(item) && isEarlier(item.candidate),
      )
    );
  }

  /** Called when the next wanted frame of a source was taken from its queue. */
  onWantedTaken(): void {
    this.#wantedFrames--;
  }

  /** Returns candidates without an answer to their sources when the connection broke. */
  returnToSources(): void {
    this.#isAbandoned = true;
    for (const { source, candidates } of this.#unanswered) source.candidates.push(...candidates);
    for (const { source, candidate } of [...this.#reading, ...this.#readQueue]) {
      source.candidates.push(candidate);
    }
  }
}

function payloadBytes(candidates: readonly Candidate[]): number {
  return candidates.reduce((sum, { frame }) => sum + frame.size, 0);
}

export function toOfferEntry({ frame, crc }: Candidate): OfferEntry {
  const { name, size, captured, sequence } = frame;
  const entry: OfferEntry = [name, size, String(captured), sequence];
  if (crc !== undefined) entry.push(crc);
  return entry;
}
