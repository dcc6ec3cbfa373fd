/** Asks the server which frames it has, before they are sent (SPEC section 8). */
import { checksum } from "../checksum.ts";
import { asFramesError, FramesError } from "../errors.ts";
import type { Frame, Standing } from "../frame.ts";
import { mostOffered, type OfferEntry, standingLetters } from "../wire/messages.ts";
import type { Candidate, Outlet } from "./outlet.ts";

/** Bytes of JSON that one OFFER may come to, of the 64 KiB that are allowed. */
const largestOffer = 60_000;

/** Bytes of JSON for an entry besides its name, at most; and for a character of that. */
const entrySize = 80;
const characterSize = 6;

/**
 * Bytes of the frames in one OFFER, and in all without an answer, where the server may have to read
 * its own before it answers: nobody else is served meanwhile.
 */
const mostBytesAtOnce = 48 << 20;
const mostBytes = 4 * mostBytesAtOnce;

/** Frames that are read for their CRC-32 at the same time. */
const readAtOnce = 4;

/** OFFERs that may be on their way before the next one has to be full. */
const partlyFilled = 2;

/** Frames that make an OFFER full: as many as its JSON holds, if their names are not long. */
const fullOffer = 500;

/** What offering leads to. */
export interface OfferHooks {
  /** Says OFFER, of frames of one stream. */
  offer(outlet: Outlet, stream: string, entries: OfferEntry[]): void;
  /** The server does not want the frame. */
  answered(
    outlet: Outlet,
    candidate: Candidate,
    standing: Exclude<Standing, "unsure" | "wanted">,
  ): void;
  /** The frame could not be read for its CRC-32. */
  unreadable(outlet: Outlet, frame: Frame, error: FramesError): void;
  /** Something can be offered that could not before. */
  wake(): void;
}

/** The offers of one connection. */
export class Offers {
  readonly #alwaysRead: boolean;
  readonly #hooks: OfferHooks;
  readonly #unanswered: { outlet: Outlet; candidates: Candidate[] }[] = [];
  readonly #toRead: { outlet: Outlet; candidate: Candidate }[] = [];
  readonly #reading = new Set<{ outlet: Outlet; candidate: Candidate }>();
  /** Frames in offers without an answer, and their bytes. */
  #offered = 0;
  #offeredBytes = 0;
  /** Wanted frames that were not begun. */
  #wanted = 0;
  #abandoned = false;

  /** @param alwaysRead whether every frame is offered with its CRC-32 */
  constructor(alwaysRead: boolean, hooks: OfferHooks) {
    this.#alwaysRead = alwaysRead;
    this.#hooks = hooks;
  }

  /** Whether any offer waits for its answer. */
  get isUnanswered(): boolean {
    return this.#unanswered.length > 0;
  }

  /** Whether `outlet` should have more candidates. */
  wantsMore({ candidates }: Outlet): boolean {
    const inQuestion = this.#offered + this.#toRead.length + this.#reading.size + this.#wanted;
    return candidates.length < fullOffer && inQuestion + candidates.length < mostOffered;
  }

  /** Offers what `outlet` has, or reads it first. Returns whether there is something new to say. */
  offer(outlet: Outlet): boolean {
    if (this.#alwaysRead) this.#read(outlet);
    if (this.#alwaysRead && this.#offeredBytes >= mostBytes) return false;
    const candidates = this.#nextBatch(outlet);
    if (candidates.length === 0) return false;
    this.#offered += candidates.length;
    this.#offeredBytes += bytesOf(candidates);
    outlet.inQuestion += candidates.length;
    this.#unanswered.push({ outlet, candidates });
    this.#hooks.offer(outlet, outlet.streamOf(candidates[0]!.frame), candidates.map(entryOf));
    return true;
  }

  #nextBatch(outlet: Outlet): Candidate[] {
    const { candidates } = outlet;
    let count = 0;
    let bytes = 0;
    let payload = 0;
    const room = mostOffered - this.#offered;
    while (count < candidates.length && count < room) {
      const { frame } = candidates[count]!;
      const { name, size } = frame;
      if (outlet.streamOf(frame) !== outlet.streamOf(candidates[0]!.frame)) {
        return candidates.splice(0, count);
      }
      bytes += entrySize + characterSize * name.length;
      payload += size;
      const isFull = bytes > largestOffer || (this.#alwaysRead && payload > mostBytesAtOnce);
      if (isFull && count > 0) return candidates.splice(0, count);
      count++;
    }
    // While there are frames to send, or answers are awaited anyway, a few more may come to fill it.
    const moreMayCome = outlet.givesMore || this.#toRead.length + this.#reading.size > 0;
    const isUrgent = this.#unanswered.length < partlyFilled && outlet.wanted.length === 0;
    if (!isUrgent && moreMayCome && count < Math.min(room, fullOffer)) return [];
    return candidates.splice(0, count);
  }

  /** Has those read whose CRC-32 is not known. */
  #read(outlet: Outlet): void {
    const unread = outlet.candidates.filter(({ crc }) => crc === undefined);
    if (unread.length === 0) return;
    outlet.candidates = outlet.candidates.filter(({ crc }) => crc !== undefined);
    for (const candidate of unread) this.#readLater(outlet, candidate);
  }

  #readLater(outlet: Outlet, candidate: Candidate): void {
    outlet.inQuestion++;
    this.#toRead.push({ outlet, candidate });
    if (this.#reading.size < readAtOnce) void this.#readNext();
  }

  async #readNext(): Promise<void> {
    const next = this.#toRead.shift();
    if (next === undefined) return;
    const { outlet, candidate } = next;
    this.#reading.add(next);
    let failure: FramesError | undefined;
    let crc: number | undefined;
    try {
      if (!outlet.isStopped) crc = await checksum(candidate.frame);
    } catch (error) {
      failure = asFramesError(error, "unreadable");
    }
    // Then the outlet has it back already, and may have offered it as it was.
    if (this.#abandoned) return;
    candidate.crc = crc;
    this.#reading.delete(next);
    outlet.inQuestion--;
    if (!outlet.isStopped) {
      if (failure === undefined) outlet.candidates.push(candidate);
      else this.#hooks.unreadable(outlet, candidate.frame, failure);
    }
    this.#hooks.wake();
    void this.#readNext();
  }

  /**
   * ANSWER came.
   *
   * @throws {FramesError} `protocol` if it does not fit the OFFER that it answers
   */
  answer(id: number, letters: string): void {
    const [offer] = this.#unanswered;
    if (offer?.outlet.id !== id || offer.candidates.length !== letters.length) {
      throw new FramesError("protocol", "Cannot accept ANSWER: it does not fit the OFFER");
    }
    const { outlet, candidates } = offer;
    const standings = candidates.map(({ crc }, index) => {
      const standing = standingLetters.get(letters[index]!);
      if (standing !== undefined && (standing !== "unsure" || crc === undefined)) return standing;
      throw new FramesError("protocol", `Cannot accept ANSWER: it says ${letters[index]}`);
    });
    this.#unanswered.shift();
    this.#offeredBytes -= bytesOf(candidates);
    this.#offered -= candidates.length;
    outlet.inQuestion -= candidates.length;
    for (let index = 0; index < candidates.length; index++) {
      const candidate = candidates[index]!;
      const standing = standings[index]!;
      if (standing === "unsure") this.#readLater(outlet, candidate);
      else if (standing !== "wanted") this.#hooks.answered(outlet, candidate, standing);
      else if (!outlet.isStopped) this.want(outlet, candidate.frame);
    }
  }

  /** The frame is to be sent. */
  want(outlet: Outlet, frame: Frame): void {
    this.#wanted++;
    outlet.wanted.push(frame);
  }

  /** Takes the next wanted frame of `outlet`. */
  takeWanted(outlet: Outlet): Frame | undefined {
    const frame = outlet.wanted.shift();
    if (frame !== undefined) this.#wanted--;
    return frame;
  }

  /** The connection broke: what is in question goes back to its outlet. */
  abandon(): void {
    this.#abandoned = true;
    for (const { outlet, candidates } of this.#unanswered) outlet.candidates.push(...candidates);
    for (const { outlet, candidate } of [...this.#reading, ...this.#toRead]) {
      outlet.candidates.push(candidate);
    }
  }
}

function bytesOf(candidates: readonly Candidate[]): number {
  return candidates.reduce((sum, { frame }) => sum + frame.size, 0);
}

function entryOf({ frame, crc }: Candidate): OfferEntry {
  const { name, size, captured, sequence } = frame;
  const entry: OfferEntry = [name, size, String(captured), sequence];
  if (crc !== undefined) entry.push(crc);
  return entry;
}
