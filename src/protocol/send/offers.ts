/** Asks the server which frames it has, before they are sent (SPEC section 8). */
import { checksum } from "../../common/checksum.ts";
import { asFramesError, FramesError } from "../../errors.ts";
import type { Frame, OfferStatus } from "../../frame.ts";
import { maxOfferedFrames, type OfferEntry, offerStatusByLetter } from "../../wire/messages.ts";
import type { Candidate, OutgoingSource } from "./outgoing-source.ts";

/** Bytes of JSON that one OFFER may come to, of the 64 KiB that are allowed. */
const maxOfferJsonBytes = 60_000;

/** Bytes of JSON for an entry besides its name, at most; and for a character of that. */
const maxEntryBytes = 80;
const maxCharacterBytes = 6;

/**
 * Bytes of the frames in one OFFER, and in all without an answer, where the server may have to read
 * its own before it answers: nobody else is served meanwhile.
 */
const maxOfferPayloadBytes = 48 << 20;
const maxUnansweredBytes = 4 * maxOfferPayloadBytes;

/** Frames that are read for their CRC-32 at the same time. */
const maxConcurrentReads = 4;

/** OFFERs that may be on their way before the next one has to be full. */
const maxPartialOffers = 2;

/** Frames that make an OFFER full: as many as its JSON holds, if their names are not long. */
const fullOfferFrames = 500;

/** What offering leads to. */
export interface OfferHooks {
  /** Says OFFER, of frames of one stream. */
  sendOffer(source: OutgoingSource, stream: string, entries: OfferEntry[]): void;
  /** The server does not want the frame. */
  onAnswered(
    source: OutgoingSource,
    candidate: Candidate,
    status: Exclude<OfferStatus, "needsChecksum" | "wanted">,
  ): void;
  /** The frame could not be read for its CRC-32. */
  onUnreadable(source: OutgoingSource, frame: Frame, error: FramesError): void;
  /** Something can be offered that could not before. */
  onWritable(): void;
}

/** The offers of one connection. */
export class Offers {
  readonly #alwaysChecksum: boolean;
  readonly #hooks: OfferHooks;
  readonly #unanswered: { source: OutgoingSource; candidates: Candidate[] }[] = [];
  readonly #readQueue: { source: OutgoingSource; candidate: Candidate }[] = [];
  readonly #reading = new Set<{ source: OutgoingSource; candidate: Candidate }>();
  /** Frames in offers without an answer, and their bytes. */
  #offeredFrames = 0;
  #offeredBytes = 0;
  /** Wanted frames that were not begun. */
  #wantedFrames = 0;
  #isAbandoned = false;

  /** @param alwaysChecksum whether every frame is offered with its CRC-32 */
  constructor(alwaysChecksum: boolean, hooks: OfferHooks) {
    this.#alwaysChecksum = alwaysChecksum;
    this.#hooks = hooks;
  }

  /** Whether any offer waits for its answer. */
  get hasUnanswered(): boolean {
    return this.#unanswered.length > 0;
  }

  /** Whether `outlet` should have more candidates. */
  wantsCandidates({ candidates }: OutgoingSource): boolean {
    const pendingCandidates =
      this.#offeredFrames + this.#readQueue.length + this.#reading.size + this.#wantedFrames;
    return (
      candidates.length < fullOfferFrames &&
      pendingCandidates + candidates.length < maxOfferedFrames
    );
  }

  /** Offers what `outlet` has, or reads it first. Returns whether there is something new to say. */
  offer(source: OutgoingSource): boolean {
    if (this.#alwaysChecksum) this.#queueUnread(source);
    if (this.#alwaysChecksum && this.#offeredBytes >= maxUnansweredBytes) return false;
    const candidates = this.#nextBatch(source);
    if (candidates.length === 0) return false;
    this.#offeredFrames += candidates.length;
    this.#offeredBytes += payloadBytes(candidates);
    source.pendingCandidates += candidates.length;
    this.#unanswered.push({ source, candidates });
    this.#hooks.sendOffer(
      source,
      source.streamNameOf(candidates[0]!.frame),
      candidates.map(toOfferEntry),
    );
    return true;
  }

  #nextBatch(source: OutgoingSource): Candidate[] {
    const { candidates } = source;
    let count = 0;
    let bytes = 0;
    let payload = 0;
    const capacity = maxOfferedFrames - this.#offeredFrames;
    while (count < candidates.length && count < capacity) {
      const { frame } = candidates[count]!;
      const { name, size } = frame;
      if (source.streamNameOf(frame) !== source.streamNameOf(candidates[0]!.frame)) {
        return candidates.splice(0, count);
      }
      bytes += maxEntryBytes + maxCharacterBytes * name.length;
      payload += size;
      const isFull =
        bytes > maxOfferJsonBytes || (this.#alwaysChecksum && payload > maxOfferPayloadBytes);
      if (isFull && count > 0) return candidates.splice(0, count);
      count++;
    }
    // While there are frames to send, or answers are awaited anyway, a few more may come to fill it.
    const moreMayCome = source.hasMore || this.#readQueue.length + this.#reading.size > 0;
    const isUrgent = this.#unanswered.length < maxPartialOffers && source.wanted.length === 0;
    if (!isUrgent && moreMayCome && count < Math.min(capacity, fullOfferFrames)) return [];
    return candidates.splice(0, count);
  }

  /** Has those read whose CRC-32 is not known. */
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
    // Then the outlet has it back already, and may have offered it as it was.
    if (this.#isAbandoned) return;
    candidate.crc = crc;
    this.#reading.delete(next);
    source.pendingCandidates--;
    if (!source.isStopped) {
      if (failure === undefined) source.candidates.push(candidate);
      else this.#hooks.onUnreadable(source, candidate.frame, failure);
    }
    this.#hooks.onWritable();
    void this.#readNext();
  }

  /**
   * ANSWER came.
   *
   * @throws {FramesError} `protocol` if it does not fit the OFFER that it answers
   */
  onAnswer(id: number, letters: string): void {
    const [offer] = this.#unanswered;
    if (offer?.source.id !== id || offer.candidates.length !== letters.length) {
      throw new FramesError("protocol", "Cannot accept ANSWER: it does not fit the OFFER");
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
    for (let index = 0; index < candidates.length; index++) {
      const candidate = candidates[index]!;
      const status = statuses[index]!;
      if (status === "needsChecksum") this.#queueRead(source, candidate);
      else if (status !== "wanted") this.#hooks.onAnswered(source, candidate, status);
      else if (!source.isStopped) this.addWanted(source, candidate.frame);
    }
  }

  /** The frame is to be sent. */
  addWanted(source: OutgoingSource, frame: Frame): void {
    this.#wantedFrames++;
    source.wanted.push(frame);
  }

  /** Takes the next wanted frame of `outlet`. */
  shiftWanted(source: OutgoingSource): Frame | undefined {
    const frame = source.wanted.shift();
    if (frame !== undefined) this.#wantedFrames--;
    return frame;
  }

  /** The connection broke: what is in question goes back to its outlet. */
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

function toOfferEntry({ frame, crc }: Candidate): OfferEntry {
  const { name, size, captured, sequence } = frame;
  const entry: OfferEntry = [name, size, String(captured), sequence];
  if (crc !== undefined) entry.push(crc);
  return entry;
}
