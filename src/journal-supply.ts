/** What a client that receives is to get of a journal, in the order of arrival. */
import { crc32 } from "node:zlib";
import { FramesError } from "./errors.ts";
import type { Origin, Supplied, SuppliedFrame, Supply } from "./session/supply.ts";
import type { KeptFrame, Selection } from "./store/catalog.ts";
import type { StoreReader } from "./store-reader.ts";
import { StoredFrame } from "./stored-frame.ts";

/** Rows that are taken from the journal at a time, and numbers of rows that are looked through for them. */
const rowsAtOnce = 200;
const numbersAtOnce = 5000;

/** What a client asked for. */
export interface Wanted extends Selection {
  /** Where it goes on, in the words of `cursorOf`. */
  readonly cursor?: string | undefined;
  /** Whether it waits for what arrives. */
  readonly follow: boolean;
}

/** Everything that was asked for, without a hole and without a double. */
export class CompleteSupply implements Supply {
  readonly #reader: StoreReader;
  readonly #wanted: Wanted;
  readonly #numbering: string;
  /** The last row that was looked at. */
  #position: number;
  /** The last row that there is to be; nothing while there may be more. */
  readonly #end: number | undefined;
  #rows: readonly KeptFrame[] = [];
  #next = 0;
  /** A frame that another is about to replace: it is looked at again when that is over. */
  #held: SuppliedFrame | undefined;

  constructor(reader: StoreReader, wanted: Wanted) {
    this.#reader = reader;
    this.#wanted = wanted;
    this.#numbering = reader.catalog.property("numbering") ?? "";
    this.#position = this.#begin();
    if (!wanted.follow) this.#end = reader.last;
  }

  /** Where a cursor stands; the beginning where it says nothing of the journal as it is. */
  #begin(): number {
    const [numbering, number, mark] = this.#wanted.cursor?.split(".") ?? [];
    const id = Number(number);
    const { catalog } = this.#reader;
    if (numbering !== this.#numbering || !Number.isSafeInteger(id) || id > catalog.last()) return 0;
    const row = catalog.at(id);
    // What was lost in a power cut, or set aside by a repair, made room for others under its number.
    return row !== undefined && markOf(row) !== mark ? 0 : id;
  }

  /** The last row that was given out, or passed over before that. */
  get position(): number {
    const next = this.#held?.position ?? this.#rows[this.#next]?.id;
    return next === undefined ? this.#position : next - 1;
  }

  get isBusy(): boolean {
    if (this.#held !== undefined) return false;
    return this.#next < this.#rows.length || this.#position < this.#last;
  }

  get #last(): number {
    return this.#end ?? this.#reader.last;
  }

  get isOver(): boolean {
    const isDry = this.#held === undefined && this.#next === this.#rows.length;
    return isDry && this.#end !== undefined && this.#position >= this.#end;
  }

  next(): Supplied | undefined {
    if (this.#held !== undefined) {
      const held = this.#held;
      const { catalog } = this.#reader;
      if (catalog.isBeingReplaced((held.frame as StoredFrame).kept)) return undefined;
      this.#held = undefined;
      if (catalog.at(held.position) !== undefined) return held;
    }
    if (this.#next === this.#rows.length) this.#fill();
    const row = this.#rows[this.#next];
    if (row === undefined) return undefined;
    this.#next++;
    return itemOf(this.#reader.place, row, `${this.#numbering}.${row.id}.${markOf(row)}`);
  }

  putBack(): void {
    this.#next--;
  }

  /** Looks through the next rows. */
  #fill(): void {
    const last = this.#last;
    this.#next = 0;
    this.#rows = [];
    if (this.#position >= last) return;
    const recent = this.#reader.after(this.#position);
    if (recent !== undefined) {
      this.#rows = recent.filter((row) => row.id <= last && isWanted(row, this.#wanted));
      this.#position = last;
      return;
    }
    const { catalog } = this.#reader;
    const upTo = Math.min(this.#position + numbersAtOnce, last);
    this.#rows = catalog.between(this.#wanted, this.#position, upTo, rowsAtOnce);
    if (this.#rows.length === rowsAtOnce) this.#position = this.#rows.at(-1)!.id;
    // Of what was removed there may be millions of numbers without a row.
    else if (this.#rows.length > 0) this.#position = upTo;
    else this.#position = Math.max(upTo, (catalog.nextId(upTo) ?? last + 1) - 1);
  }

  failed(item: SuppliedFrame, error: FramesError): Supplied | undefined {
    const { kept } = item.frame as StoredFrame;
    const { catalog } = this.#reader;
    if (catalog.isBeingReplaced(kept)) {
      this.#held = item;
      return undefined;
    }
    return missing(item, error, catalog.named(kept.stream, kept.source, kept.name));
  }
}

/** Ranges of frames that were passed over, of all sources: more are told before anything else is looked at. */
const mostLosses = 1000;

/** The newest frame of each source: what came before it in the meantime is passed over. */
export class LatestSupply implements Supply {
  readonly #reader: StoreReader;
  readonly #wanted: Wanted;
  #position: number;
  /** The newest frame of each source that has one; whose turn it is comes first. */
  readonly #frames = new Map<string, KeptFrame>();
  /** What was passed over and is to be told. */
  #lost: Supplied[] = [];

  constructor(reader: StoreReader, wanted: Wanted) {
    this.#reader = reader;
    this.#wanted = wanted;
    this.#position = reader.last;
    for (const frame of reader.catalog.newestOfEach(wanted)) this.#frames.set(frame.source, frame);
  }

  get position(): number {
    return Infinity;
  }

  get isBusy(): boolean {
    return this.#wanted.follow && this.#position < this.#reader.last;
  }

  get isOver(): boolean {
    return !this.#wanted.follow && this.#frames.size === 0;
  }

  next(): Supplied | undefined {
    if (this.#wanted.follow && this.#lost.length < mostLosses) this.#look();
    const loss = this.#lost.shift();
    if (loss !== undefined) return loss;
    // What there is now may not be the newest.
    if (this.isBusy) return undefined;
    const [first] = this.#frames;
    if (first === undefined) return undefined;
    const [source, frame] = first;
    this.#frames.delete(source);
    return itemOf(this.#reader.place, frame, undefined);
  }

  putBack(item: Supplied): void {
    this.#lost.unshift(item);
  }

  /** Looks through some of what came. */
  #look(): void {
    const last = this.#reader.last;
    if (this.#position >= last) return;
    const recent = this.#reader.after(this.#position);
    const upTo = recent === undefined ? Math.min(this.#position + numbersAtOnce, last) : last;
    const { catalog } = this.#reader;
    const rows = recent ?? catalog.between(this.#wanted, this.#position, upTo, numbersAtOnce);
    this.#position = upTo;
    for (const row of rows) {
      if (!isWanted(row, this.#wanted)) continue;
      const before = this.#frames.get(row.source);
      if (before !== undefined) this.#pass(before);
      this.#frames.set(row.source, row);
    }
  }

  /** A frame is passed over: it joins the range before it, if it follows that. */
  #pass(frame: KeptFrame): void {
    const { sequence, source, session } = frame;
    const before = this.#lost.findLastIndex(({ origin }) => origin.source === source);
    const range = this.#lost[before];
    const follows =
      range?.type === "lost" && range.origin.session === session && range.last === sequence - 1;
    const loss: Supplied = {
      type: "lost",
      origin: originOf(frame),
      position: frame.id,
      cursor: undefined,
      first: follows ? range.first : sequence,
      last: sequence,
      error: new FramesError("dropped", "newer frames came before it could be sent"),
    };
    if (follows) this.#lost[before] = loss;
    else this.#lost.push(loss);
  }

  failed(item: SuppliedFrame, error: FramesError): Supplied | undefined {
    const { stream, source, name } = (item.frame as StoredFrame).kept;
    return missing(item, error, this.#reader.catalog.named(stream, source, name));
  }
}

/** Whether a row is one that was asked for. */
function isWanted(row: KeptFrame, { stream, sources, since }: Wanted): boolean {
  return (
    row.stream === stream &&
    (sources === undefined || sources.includes(row.source)) &&
    (since === undefined || row.captured >= since)
  );
}

/** Tells a row from another one that may have its number later. */
function markOf({ session, sequence, crc32: crc, received }: KeptFrame): string {
  return crc32(`${session} ${sequence} ${crc} ${received}`).toString(16);
}

function originOf({ source, session, raw }: KeptFrame): Origin {
  return { source, session, raw };
}

function itemOf(place: string, kept: KeptFrame, cursor: string | undefined): SuppliedFrame {
  const frame = new StoredFrame(place, kept);
  return { type: "frame", origin: originOf(kept), position: kept.id, cursor, frame };
}

/**
 * What is said of a frame that could not be read.
 *
 * @param now what has its name in the journal now
 */
function missing(
  item: SuppliedFrame,
  error: FramesError,
  now: KeptFrame | undefined,
): Supplied | undefined {
  const { origin, position, cursor, frame } = item;
  const { sequence, name } = frame;
  // Another has taken its place, and comes later.
  if (now !== undefined && now.id !== position) return undefined;
  if (error.code === "vanished" || now === undefined) {
    return { type: "gone", origin, position, cursor, sequence, name };
  }
  return { type: "lost", origin, position, cursor, first: sequence, last: sequence, error };
}
