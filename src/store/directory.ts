/**
 * Frames in a directory: `DIR/STREAM/SOURCE/NAME`. A frame is written under `.frames/partial`, its
 * checksum verified by the caller, renamed to its final name, and journalled with its batch.
 */
import { lstatSync, mkdirSync, readdirSync, statSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { asFramesError, FramesError } from "../errors.ts";
import type {
  FrameDescription,
  FrameOrigin,
  FrameStore,
  FrameWriter,
  OfferedFrame,
  SourceStore,
  Standing,
} from "../frame.ts";
import { mostOpenFiles } from "../open-files.ts";
import { Batch } from "./batch.ts";
import { Comparison } from "./comparison.ts";
import { checkCopy, type CopyOf } from "./copy-of.ts";
import { fileChecksum, isIntact } from "./content.ts";
import { Folder } from "./folder.ts";
import { Handles } from "./handles.ts";
import { Journal } from "./journal.ts";
import { KeptDirectory, type KeptFrames } from "./kept.ts";
import { StoreLock } from "./lock.ts";
import { checkPart, sourceFolder } from "./name.ts";
import { type Destination, isAnothers, isRevised, PartialFile } from "./partial.ts";
import { recover, type Recovery } from "./recovery.ts";
import { Remover } from "./remover.ts";
import { type Keep, Retention } from "./retention.ts";
import { Register } from "./register.ts";
import { type DiskSpace, diskSpace, Room } from "./room.ts";
import { syncFolder } from "./sync.ts";
import { journalPath } from "./schema.ts";

/** How a store in a directory behaves. */
export interface DirectoryStoreOptions {
  /** Refuse what Windows and macOS cannot keep, wherever this runs. */
  readonly portableNames: boolean;
  /** Whether everything is flushed to the disk before a receipt, whoever sends it. */
  readonly durable?: boolean;
  /** Bytes of the disk that are kept free. Default: 5 %, 10 GB at most. */
  readonly reserve?: number | undefined;
  /** What is removed after a while. Default: nothing. */
  readonly keep?: Keep | undefined;
  /** The stream that it is a copy of; the copy of a store has no folder for its one stream. */
  readonly copy?: CopyOf | undefined;
  /** Wall clock, in milliseconds since 1970. */
  readonly clock: () => number;
  /** Space of the disk that a path lies on. */
  readonly diskSpace?: (path: string) => DiskSpace;
}

/** Whether this system's file names are those of Windows or macOS. */
export const systemNeedsPortableNames =
  process.platform === "win32" || process.platform === "darwin";

/** A store in a directory, served by this process alone. */
export class DirectoryStore implements FrameStore {
  readonly place: string;
  readonly journal: Journal;
  readonly isDurable: boolean;
  /** What the last process left half done. */
  readonly recovery: Recovery;
  /** Removes what is not to be kept, once it is started. */
  readonly retention: Retention | undefined;
  /** Gives frames back. */
  readonly kept: KeptFrames;
  readonly #lock: StoreLock;
  /** The stream that it is a copy of, if it is one. */
  readonly #copied: string | undefined;
  /** Where frames are written. */
  readonly #partial: Folder;
  readonly #register: Register;
  readonly #batch: Batch;
  readonly #room: Room;
  /** Inode of the journal. */
  readonly #journalFile: number;
  /** A quarter of the files that may be open; half is for connections. */
  readonly #handles = new Handles(mostOpenFiles() >> 2);
  #foldersFlushed = false;
  #partials = 0;
  #flushing: Promise<void> | undefined;

  /**
   * Opens the store, or makes it.
   *
   * @throws {FramesError} `store` if it cannot be written, `locked` if another process serves it
   */
  constructor(directory: string, options: DirectoryStoreOptions) {
    this.place = resolve(directory);
    this.isDurable = options.durable === true;
    this.#partial = new Folder(this.place, ".frames/partial");
    this.#room = new Room(this.place, options.reserve, options.diskSpace ?? diskSpace);
    let wasStore: boolean;
    try {
      mkdirSync(dirname(this.#partial.path), { recursive: true });
      wasStore = this.#partial.isThere();
      this.#makePartial();
      checkHidden(join(this.place, ".frames"));
      this.#lock = new StoreLock(join(this.place, ".frames"));
    } catch (error) {
      throw asFramesError(error, "store", `Cannot write the store ${this.place}`);
    }
    try {
      this.#copied = options.copy?.stream;
      if (wasStore && options.copy === undefined) checkJournalThere(this.place);
      this.journal = new Journal(journalPath(this.place));
      this.kept = new KeptDirectory(this.place, this.#room, this.journal);
      this.#journalFile = statSync(journalPath(this.place)).ino;
      checkCopy(this.place, this.journal, options.copy);
      this.recovery = recover(this.place, this.#partial.path, this.journal, this.#copied);
      this.#register = new Register(this.journal, options.portableNames, options.clock);
      this.#batch = new Batch(this.journal, this.#partial.path);
      const remover = new Remover(this.place, this.#register);
      remover.complete();
      this.retention = this.#retention(remover, options);
      if (this.isDurable) this.#makeDurable();
    } catch (error) {
      this.#lock.release();
      throw asFramesError(error, "store", `Cannot write the store ${this.place}`);
    }
  }

  #retention(remover: Remover, { keep, clock }: DirectoryStoreOptions): Retention | undefined {
    if (keep === undefined) return undefined;
    const { journal, isDurable } = this;
    const inTurn = <T>(act: () => Promise<T>) => {
      return this.#inTurn(() => {
        this.#checkThere();
        this.#batch.checkOrder();
        return act();
      });
    };
    return new Retention({ journal, remover, isDurable, clock, inTurn }, keep);
  }

  isFresh(stream: string): boolean {
    this.#checkThere();
    this.#room.admit();
    return !this.journal.hasStream(stream);
  }

  check(stream: string, source: string): void {
    this.#checkStream(stream);
    this.#register.checkFree(sourceFolder(stream, source, this.#register.isPortable));
  }

  /** A copy has no place for another stream than its own. */
  #checkStream(stream: string): void {
    if (this.#copied === undefined || stream === this.#copied) return;
    throw new FramesError("bad-name", `A copy of ${this.#copied} holds no frames of ${stream}`);
  }

  open(given: FrameOrigin): SourceStore {
    this.#checkStream(given.stream);
    const durable = this.isDurable || given.durable === true;
    if (durable) this.#makeDurable();
    const origin = { ...given, durable, proven: given.durable === true };
    const relative = sourceFolder(origin.stream, origin.source, this.#register.isPortable);
    this.#register.checkFree(relative);
    const folder = new Folder(this.place, relative, this.#copied);
    const destination = {
      origin,
      folder,
      register: this.#register,
      handles: this.#handles,
      later: (file: PartialFile, crc: number) => this.#batch.add(file, crc),
      found: (path: string) => {
        if (durable) this.#batch.addFound(folder, path);
      },
    };
    return new SourceFolder(destination, {
      room: this.#room,
      nextPartial: () => this.#nextPartial(),
      checkOrder: () => this.#batch.checkOrder(),
    });
  }

  /** From now on the journal is flushed to the disk; its folders are at once. */
  #makeDurable(): void {
    this.journal.makeDurable();
    if (this.#foldersFlushed) return;
    const { path } = this.#partial;
    try {
      for (const folder of [path, dirname(path), this.place, dirname(this.place)]) {
        syncFolder(folder);
      }
    } catch (error) {
      throw asFramesError(error, "store", `Cannot write the store ${this.place}`);
    }
    this.#foldersFlushed = true;
  }

  flush(): void | Promise<void> {
    // Others write to the disk too.
    this.#room.forget();
    if (this.journal.isDirty || !this.#batch.isEmpty) this.#checkThere();
    if (this.#batch.isEmpty && this.#flushing === undefined) return this.journal.flush();
    return this.#inTurn(() => this.#batch.flush());
  }

  /** One after the other: whoever calls now may wait for what the one before has taken. */
  #inTurn<T>(act: () => Promise<T>): Promise<T> {
    const turn = (this.#flushing ?? Promise.resolve()).then(act, act);
    const flushing = turn.then(() => {});
    this.#flushing = flushing;
    const end = () => {
      if (this.#flushing === flushing) this.#flushing = undefined;
    };
    flushing.then(end, end);
    return turn;
  }

  /** A journal that was removed goes on in memory, as it were: what it says is true of nothing. */
  #checkThere(): void {
    const found = statSync(journalPath(this.place), { throwIfNoEntry: false })?.ino;
    if (found === this.#journalFile) return;
    throw new FramesError("store", `The store ${this.place} was removed while it was served`);
  }

  /** Closes journal and lock; the store is then of no more use. */
  close(): void {
    this.retention?.stop();
    try {
      this.journal.close();
    } finally {
      this.#lock.release();
    }
  }

  /** What is wrong with this folder every frame would meet. */
  #makePartial(): void {
    try {
      this.#partial.make();
    } catch (error) {
      const { message } = asFramesError(error, "store", `Cannot write the store ${this.place}`);
      throw new FramesError("store", message, { cause: error });
    }
  }

  /** A path for a frame being written. */
  #nextPartial(): string {
    this.#makePartial();
    return this.#partial.pathOf(`${++this.#partials}`);
  }
}

/**
 * A link among the store's own files would lead what is written there elsewhere.
 *
 * @throws {FramesError} `store`
 */
function checkHidden(folder: string): void {
  const wrong = readdirSync(folder, { withFileTypes: true }).find((entry) => {
    return !entry.isFile() && !entry.isDirectory();
  });
  if (wrong === undefined) return;
  throw new FramesError("store", `Cannot write the store: ${join(folder, wrong.name)} is no file`);
}

/** About the bytes of a loss in the journal. */
const lossSize = 200;

/** Nobody else is served while files are read to be compared, so not too many are at a time. */
const mostReadAtOnce = 64 << 20;

/**
 * A store that has folders and no journal has lost it: with a new one everything would count as
 * unknown, and what was moved away would come again.
 *
 * @throws {FramesError} `store`
 */
function checkJournalThere(place: string): void {
  const path = journalPath(place);
  if ((statSync(path, { throwIfNoEntry: false })?.size ?? 0) > 0) return;
  const hasFolders = readdirSync(place, { withFileTypes: true }).some(
    (entry) => entry.isDirectory() && !entry.name.startsWith("."),
  );
  if (!hasFolders) return;
  throw new FramesError(
    "store",
    `The journal ${path} is gone, but there are frames; frames verify DIR --repair makes a new one`,
  );
}

/** Standings of frames that may still come. */
const openStandings: ReadonlySet<Standing> = new Set(["wanted", "unsure"]);

/** What the source of a store needs of it. */
interface StoreParts {
  readonly room: Room;
  /** A path for a frame being written. */
  nextPartial(): string;
  /** Makes sure that each name has the row of its bytes. */
  checkOrder(): void;
}

/** The folder of one source, while one session sends to it. */
class SourceFolder implements SourceStore {
  readonly #destination: Destination;
  readonly #store: StoreParts;
  /** Bytes of files that may still be read for the answer under way. */
  #mayRead = 0;

  constructor(destination: Destination, store: StoreParts) {
    this.#destination = destination;
    this.#store = store;
  }

  begin(description: FrameDescription): FrameWriter {
    const { origin, folder, register } = this.#destination;
    const { name, size } = description;
    this.#store.checkOrder();
    checkPart(name, register.isPortable);
    const stored = register.journal.find(origin.stream, origin.source, name);
    const isOwn = stored !== null && isRevised(stored, origin, description);
    const { conflict, again, mirrors } = origin;
    const mayReplace = conflict === "replace" || again === true || mirrors === true || isOwn;
    if (stored !== null && !mayReplace) {
      return new Comparison(this.#destination, description, stored);
    }
    register.checkFree(folder.relativePathOf(name));
    this.#store.room.take(size);
    const isReplacing = mayReplace && (stored !== null || conflict === "replace");
    return new PartialFile(this.#destination, description, this.#store.nextPartial(), isReplacing);
  }

  compare(offered: readonly OfferedFrame[]): Standing[] {
    this.#store.checkOrder();
    this.#mayRead = mostReadAtOnce;
    return this.#destination.register.journal.read(() => {
      const standings = offered.map((frame) => {
        try {
          return this.#compare(frame);
        } catch (error) {
          // It is refused with the reason when it comes.
          if (error instanceof FramesError && error.wire >= 32) return "wanted";
          throw error;
        }
      });
      this.#account(offered, standings);
      return standings;
    });
  }

  /** Those that will not come were not lost. */
  #account(offered: readonly OfferedFrame[], standings: readonly Standing[]): void {
    const { origin, register } = this.#destination;
    const isOpen = (index: number) => openStandings.has(standings[index]!);
    for (let first = 0, last = 0; first < offered.length; first = last + 1) {
      last = first;
      if (isOpen(first)) continue;
      const number = (index: number) => offered[index]!.sequence;
      while (
        last + 1 < offered.length &&
        !isOpen(last + 1) &&
        number(last + 1) === number(last) + 1
      ) {
        last++;
      }
      register.account(origin, number(first), number(last));
    }
  }

  #compare(offered: OfferedFrame): Standing {
    const { origin, folder, register } = this.#destination;
    const { name, size, captured, crc32 } = offered;
    checkPart(name, register.isPortable);
    // No journal can hold such a time, so no frame that has it is stored.
    if (BigInt.asIntN(64, captured) !== captured) return "wanted";
    const path = folder.pathOf(name);
    const stored = register.journal.findOffered(origin.stream, origin.source, name, captured);
    if (stored === null) return this.#compareRemoved(offered) ?? this.#compareFile(offered, path);
    // An earlier version of what its sender has replaced since.
    const isReplaced = stored.session === origin.session && stored.seq > offered.sequence;
    if (origin.revises === true && isReplaced) return "stored";
    const isReplacing = origin.conflict === "replace" && !isAnothers(stored, origin);
    const mayReplace = isReplacing || isRevised(stored, origin, offered);
    const taken = mayReplace ? "wanted" : "conflict";
    if (stored.bytes !== size) return taken;
    if (crc32 === undefined && stored.sameTime === 0) return "unsure";
    if (crc32 !== undefined && stored.crc32 !== crc32) return taken;
    const lies = folder.look(name);
    // A link that somebody left there is good enough for whoever keeps the frame.
    if (lies === "other") return origin.proven === true ? taken : "stored";
    if (lies === "file") {
      if (origin.proven === true) {
        // It comes as a frame then, one at a time.
        if (size > this.#mayRead) return "wanted";
        this.#mayRead -= size;
        if (!isIntact(path, stored)) return taken;
      }
      this.#destination.found(path);
      return "stored";
    }
    // What this session brought itself was moved away meanwhile.
    const isOwn = stored.session === origin.session && stored.seq === offered.sequence;
    if (origin.again === true && !isOwn) return "wanted";
    this.#destination.found(path);
    return "moved";
  }

  /** What was removed because it was old does not come again: as if somebody had moved it away. */
  #compareRemoved({ name, size, captured, crc32 }: OfferedFrame): Standing | undefined {
    const { origin, register } = this.#destination;
    if (origin.again === true) return undefined;
    const { removals } = register.journal;
    const removed = removals.find(origin.stream, origin.source, name, captured);
    if (removed === null || removed.bytes !== size) return undefined;
    if (crc32 === undefined) return removed.sameTime === 1 ? "moved" : "unsure";
    return removed.crc32 === crc32 ? "moved" : undefined;
  }

  /** The journal does not know it: its file may lie there all the same. */
  #compareFile(offered: OfferedFrame, path: string): Standing {
    const { origin, folder, register } = this.#destination;
    const { name, size, crc32 } = offered;
    if (!folder.isThere()) return "wanted";
    const found = lstatSync(path, { throwIfNoEntry: false });
    if (found === undefined || !found.isFile() || origin.conflict === "replace") return "wanted";
    if (found.size !== size) return "conflict";
    if (crc32 === undefined) return "unsure";
    if (size > this.#mayRead) return "wanted";
    this.#mayRead -= size;
    if (fileChecksum(path) !== crc32) return "conflict";
    register.checkFree(folder.relativePathOf(name));
    register.record(
      folder.relativePathOf(name),
      register.row(origin, { ...offered, metadata: "" }, crc32),
    );
    this.#destination.found(path);
    return "stored";
  }

  lost(first: number, last: number, error: FramesError): void {
    // Rows fill a disk too.
    this.#store.room.take(lossSize);
    this.#destination.register.lose(this.#destination.origin, first, last, error.code);
  }
}
