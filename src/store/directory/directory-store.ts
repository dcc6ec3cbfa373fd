/**
 * Stores frames as files `DIR/STREAM/SOURCE/NAME`. A frame is written under `.frames/partial`.
 * After the caller has verified its checksum, it is renamed to its final name and recorded in the
 * journal.
 */
import { mkdirSync, statSync } from "node:fs";
import { compileCheaply } from "../../common/compilation.ts";
import { dirname, join, resolve } from "node:path";
import { FramesError, isExhausted, isSystemError, systemCode } from "../../errors.ts";
import type {
  FrameDescription,
  SourceInfo,
  FrameStore,
  FrameWriter,
  OfferedFrame,
  Outcome,
  RunSlice,
  SourceStore,
  OfferStatus,
} from "../../frame.ts";
import { checkNotForeign } from "../../common/foreign-folder.ts";
import { OpenFileLimit } from "../../common/open-file-limit.ts";
import { openFileShares } from "../../common/open-files.ts";
import { checkHiddenFolder, checkJournalNotLost } from "./open-checks.ts";
import { CommitBatch } from "./commit-batch.ts";
import { existingBytes, flushExisting, settleExisting } from "./existing-file.ts";
import { ExistingFrameWriter } from "../existing-frame-writer.ts";
import { compareOffers } from "../offers.ts";
import { checkCopy, type CopyOf } from "./copied-stream.ts";
import { entryAt, fileChecksum, readBuffer, isKeyFile } from "./file-check.ts";
import { StoredChecksum } from "./stored-checksum.ts";
import { StoreFolder } from "./store-folder.ts";
import { Journal } from "../journal/journal.ts";
import type { DiskSpace, StoreContents } from "../store-contents.ts";
import { DirectoryContents } from "./directory-contents.ts";
import { StoreLock } from "../lock.ts";
import { checkPathPart, sourceFolderPath } from "../name-rules.ts";
import {
  compareWithRow,
  isRepeated,
  mayWriteOver,
  mismatchStatus,
  type StoredFrameInfo,
} from "../conflict.ts";
import { type FrameDestination, PartialFile } from "./partial-file.ts";
import { recover, type Recovery } from "./recovery.ts";
import { FrameDeleter } from "./frame-deleter.ts";
import { type RetentionLimit, Retention } from "./retention.ts";
import { NameIndex } from "./name-index.ts";
import { diskSpace, FreeSpace } from "./free-space.ts";
import { syncFolder } from "./fsync.ts";
import { toStoreError, toWholeStoreError } from "./store-error.ts";
import { journalPath } from "../journal/schema.ts";
import { provedKey } from "../session-owner.ts";

/** Options of a store in a directory. */
export interface DirectoryStoreOptions {
  /** Refuse names that Windows or macOS cannot store, on every system. */
  readonly portableNames: boolean;
  /** Flush everything to the disk before a receipt, even if the sender does not ask for it. */
  readonly durable?: boolean;
  /** Bytes of the disk to keep free. Default: 5 % of the disk, at most 10 GB. */
  readonly reserve?: number | undefined;
  /** Age or size above which frames are removed. Default: keep all frames. */
  readonly keep?: RetentionLimit | undefined;
  /** Stream that the store is a copy of. Such a store has no folder for the stream. */
  readonly copy?: CopyOf | undefined;
  /** Wall clock, in milliseconds since 1970. */
  readonly clock: () => number;
  /** See `RetentionContext`. */
  readonly clockTrustMs?: number;
  /** Measures the disk of a path. Default: the system's statfs. */
  readonly diskSpace?: (path: string) => DiskSpace;
}

/** Whether names on this system must suit Windows or macOS. */
export const systemNeedsPortableNames =
  process.platform === "win32" || process.platform === "darwin";

/** A store in a directory. A lock lets only one process serve it. */
export class DirectoryStore implements FrameStore {
  readonly location: string;
  readonly journal: Journal;
  readonly isDurable: boolean;
  /** Repairs made after the last process was killed. */
  readonly recovery: Recovery;
  /** Removes frames over the limit, once it is started. Undefined if all frames are kept. */
  readonly retention: Retention | undefined;
  /** Read side of the store. */
  readonly contents: StoreContents;
  readonly #lock: StoreLock;
  /** Stream that the store is a copy of, if it is one. */
  readonly #copiedStream: string | undefined;
  /** Folder of unfinished frames. */
  readonly #partialFolder: StoreFolder;
  readonly #nameIndex: NameIndex;
  readonly #commitBatch: CommitBatch;
  readonly #freeSpace: FreeSpace;
  /** Inode of the journal when it was opened. Another inode means that the store was removed. */
  readonly #journalInode: number;
  readonly #openFiles = new OpenFileLimit(openFileShares().frames);
  readonly #context: DirectoryContext;
  #areFoldersSynced = false;
  #partialCount = 0;
  #running: Promise<void> | undefined;

  /**
   * Opens a store, or creates it.
   *
   * @throws {FramesError} `store` if it cannot be written
   * @throws {FramesError} `locked` if another process serves it
   * @throws {FramesError} `usage` if it is a copy of something else
   */
  constructor(directory: string, options: DirectoryStoreOptions) {
    this.location = resolve(directory);
    this.isDurable = options.durable === true;
    compileCheaply(this.#nextPartialPath, this.#ensurePartialFolder);
    this.#partialFolder = new StoreFolder(this.location, ".frames/partial");
    this.#freeSpace = new FreeSpace(this.location, options.reserve, options.diskSpace ?? diskSpace);
    let isExisting: boolean;
    try {
      const hint = "choose a folder of your own";
      checkNotForeign(join(this.location, ".frames"), `Cannot use ${this.location}`, hint);
      mkdirSync(dirname(this.#partialFolder.path), { recursive: true });
      isExisting = this.#partialFolder.exists();
      this.#ensurePartialFolder();
      checkHiddenFolder(join(this.location, ".frames"));
      this.#lock = new StoreLock(join(this.location, ".frames"));
    } catch (error) {
      throw openError(error, this.location);
    }
    let journal: Journal | undefined;
    try {
      this.#copiedStream = options.copy?.stream;
      if (isExisting && options.copy === undefined) checkJournalNotLost(this.location);
      this.journal = journal = new Journal(journalPath(this.location));
      this.contents = new DirectoryContents(this.location, this.#freeSpace, this.journal);
      this.#journalInode = statSync(journalPath(this.location)).ino;
      checkCopy(this.location, this.journal, options.copy);
      this.recovery = recover(
        this.location,
        this.#partialFolder.path,
        this.journal,
        this.#copiedStream,
      );
      this.#nameIndex = new NameIndex(this.journal, options.portableNames, options.clock);
      this.#commitBatch = new CommitBatch(this.journal, this.#partialFolder.path);
      this.#context = {
        freeSpace: this.#freeSpace,
        nextPartialPath: () => this.#nextPartialPath(),
        commitBatch: this.#commitBatch,
      };
      const deleter = new FrameDeleter(this.location, this.#nameIndex);
      deleter.complete();
      this.retention = this.#createRetention(deleter, options);
      if (this.isDurable) this.#makeDurable();
    } catch (error) {
      try {
        journal?.close();
      } catch {
        // The first error is the one to report.
      }
      this.#lock.release();
      throw openError(error, this.location);
    }
  }

  /** Converts an error that affects every frame. */
  #toError(error: unknown): FramesError {
    return toWholeStoreError(error, `Cannot write the store ${this.location}`, this.location);
  }

  /** Runs `act` and converts its errors. */
  #guard<T>(act: () => T): T {
    try {
      return act();
    } catch (error) {
      throw toStoreError(error, `Cannot write the store ${this.location}`, this.location);
    }
  }

  #createRetention(
    deleter: FrameDeleter,
    { keep, clock, clockTrustMs }: DirectoryStoreOptions,
  ): Retention | undefined {
    if (keep === undefined) return undefined;
    const { journal, isDurable } = this;
    const runExclusive = <T>(act: () => Promise<T>) => {
      return this.#runExclusive(async () => {
        try {
          this.#checkJournalExists();
          this.#commitBatch.completeReplacements();
          return await act();
        } catch (error) {
          throw this.#toError(error);
        }
      });
    };
    return new Retention({ journal, deleter, isDurable, clock, clockTrustMs, runExclusive }, keep);
  }

  isStreamEmpty(stream: string): boolean {
    try {
      this.#checkJournalExists();
      this.#freeSpace.checkAdmission();
      return !this.journal.hasStream(stream);
    } catch (error) {
      throw this.#toError(error);
    }
  }

  checkNames(stream: string, source: string): void {
    this.#guard(() => {
      this.#checkStream(stream);
      this.#nameIndex.checkFree(sourceFolderPath(stream, source, this.#nameIndex.isPortable));
    });
  }

  /**
   * Checks that a copy stores only its own stream.
   *
   * @throws {FramesError} `bad-name`
   */
  #checkStream(stream: string): void {
    if (this.#copiedStream === undefined || stream === this.#copiedStream) return;
    throw new FramesError(
      "bad-name",
      `Cannot store frames of ${stream}: this directory is a copy of ${this.#copiedStream}`,
    );
  }

  checkSession(sender: Pick<SourceInfo, "session" | "key" | "keyId">): void {
    this.#guard(() => this.journal.checkSession(sender.session, provedKey(sender)));
  }

  open(requested: SourceInfo): SourceStore {
    return this.#guard(() => this.#open(requested));
  }

  #open(requested: SourceInfo): SourceStore {
    this.#checkStream(requested.stream);
    const durable = this.isDurable || requested.durable === true;
    if (durable) this.#makeDurable();
    const sourceInfo = { ...requested, durable, verifyStored: requested.durable === true };
    const storePath = sourceFolderPath(
      sourceInfo.stream,
      sourceInfo.source,
      this.#nameIndex.isPortable,
    );
    this.#nameIndex.checkFree(storePath);
    // A copy has the sessions of many senders, and is written by this process alone.
    if (sourceInfo.isCopy !== true) {
      this.journal.beginSession(sourceInfo.session, provedKey(sourceInfo));
    }
    const folder = new StoreFolder(this.location, storePath, this.#copiedStream);
    const destination = {
      root: this.location,
      sourceInfo,
      folder,
      nameIndex: this.#nameIndex,
      openFiles: this.#openFiles,
      batch: this.#commitBatch,
    };
    return new DirectorySourceStore(destination, this.#context);
  }

  /**
   * Makes later commits of the journal durable, and flushes the store's own folders now.
   *
   * @throws {FramesError} `store`
   */
  #makeDurable(): void {
    this.journal.makeDurable();
    if (this.#areFoldersSynced) return;
    const { path } = this.#partialFolder;
    try {
      for (const folder of [path, dirname(path), this.location, dirname(this.location)]) {
        syncFolder(folder);
      }
    } catch (error) {
      throw this.#toError(error);
    }
    this.#areFoldersSynced = true;
  }

  flush(): void | Promise<void> {
    // Other processes use the disk too, so measure it again.
    this.#freeSpace.invalidate();
    try {
      if (this.journal.isDirty || !this.#commitBatch.isEmpty) this.#checkJournalExists();
      if (this.#commitBatch.isEmpty && this.#running === undefined) return this.journal.flush();
    } catch (error) {
      throw this.#toError(error);
    }
    return this.#runExclusive(() => this.#commitBatch.flush());
  }

  /**
   * Runs actions one after the other. The frames of a later caller may be in the batch that is
   * still being flushed.
   */
  #runExclusive<T>(act: () => Promise<T>): Promise<T> {
    const result = (this.#running ?? Promise.resolve()).then(act, act);
    const running = result.then(() => {});
    this.#running = running;
    const end = () => {
      if (this.#running === running) this.#running = undefined;
    };
    running.then(end, end);
    return result;
  }

  /**
   * Checks that the journal file was not removed or replaced. SQLite would go on writing to a
   * deleted file.
   *
   * @throws {FramesError} `store`
   */
  #checkJournalExists(): void {
    const inode = statSync(journalPath(this.location), { throwIfNoEntry: false })?.ino;
    if (inode === this.#journalInode) return;
    throw new FramesError(
      "store",
      `The store ${this.location} was deleted while it was served; stop the server, and start it again`,
    );
  }

  /** Closes the journal and releases the lock. The store cannot be used afterwards. */
  close(): void {
    this.retention?.stop();
    try {
      this.journal.close();
    } finally {
      this.#lock.release();
    }
  }

  /**
   * Creates the folder of unfinished frames. Its errors become `store`, because they affect every
   * frame.
   *
   * @throws {FramesError} `store`
   */
  #ensurePartialFolder(): void {
    try {
      this.#partialFolder.ensure();
    } catch (error) {
      throw this.#toError(error);
    }
  }

  /**
   * Returns a new path for an unfinished frame.
   *
   * @throws {FramesError} `store`
   */
  #nextPartialPath(): string {
    this.#ensurePartialFolder();
    return this.#partialFolder.pathOf(`${++this.#partialCount}`);
  }
}

/** Returns the error `store` for a store that cannot be opened, with a hint. */
function openError(error: unknown, location: string): FramesError {
  const storeError = toWholeStoreError(error, `Cannot write the store ${location}`, location);
  const { code, message, cause } = storeError;
  const hint = isOfFolder(error) ? "; choose a folder that this user can write" : "";
  return hint === "" ? storeError : new FramesError(code, `${message}${hint}`, { cause });
}

/** Returns whether another folder helps: the system, not SQLite, refused this one. */
function isOfFolder(error: unknown): boolean {
  return isSystemError(error) && !isExhausted(error) && !systemCode(error)?.startsWith("SQLITE_");
}

/** Approximate bytes of a loss in the journal. */
const lossBytes = 200;

/** Parts of the store that its sources use. */
interface DirectoryContext {
  readonly freeSpace: FreeSpace;
  /** Returns a new path for an unfinished frame. */
  nextPartialPath(): string;
  readonly commitBatch: CommitBatch;
}

/** Stores the frames of one source in one session. */
class DirectorySourceStore implements SourceStore {
  readonly #destination: FrameDestination;
  readonly #context: DirectoryContext;
  readonly #storedChecksum = new StoredChecksum();
  /** Bytes of files that may still be read in this call of `compare`. */
  #readBudget = 0;

  constructor(destination: FrameDestination, context: DirectoryContext) {
    this.#destination = destination;
    this.#context = context;
    compileCheaply(this.begin, this.#begin);
  }

  begin(description: FrameDescription): FrameWriter {
    try {
      return this.#begin(description);
    } catch (error) {
      throw this.#toError(error, description.name);
    }
  }

  #toError(error: unknown, name: string): FramesError {
    return toStoreError(error, `Cannot store ${JSON.stringify(name)}`, this.#destination.root);
  }

  #begin(description: FrameDescription): FrameWriter {
    const { sourceInfo, folder, nameIndex } = this.#destination;
    const { name, size } = description;
    this.#context.commitBatch.completeReplacements();
    checkPathPart(name, nameIndex.isPortable);
    const stored = nameIndex.journal.find(sourceInfo.stream, sourceInfo.source, name);
    if (stored !== null && !mayWriteOver(stored, sourceInfo, description)) {
      return new ExistingFrameWriter((crc) => this.#finishExisting(description, stored, crc));
    }
    nameIndex.checkFree(folder.storePathOf(name));
    this.#context.freeSpace.reserve(size);
    const mayReplace = stored !== null || sourceInfo.conflict === "replace";
    return new PartialFile(
      this.#destination,
      description,
      this.#context.nextPartialPath(),
      mayReplace,
    );
  }

  #finishExisting(description: FrameDescription, stored: StoredFrameInfo, crc: number): Outcome {
    const destination = this.#destination;
    try {
      const bytes = existingBytes(destination, description, stored, crc, false);
      return settleExisting(destination, description, stored, bytes);
    } catch (error) {
      const what = `Cannot compare with ${JSON.stringify(description.name)}`;
      throw toStoreError(error, what, destination.root);
    }
  }

  compare(offered: readonly OfferedFrame[]): OfferStatus[] {
    this.#context.commitBatch.completeReplacements();
    this.#readBudget = readBuffer.length;
    const { root, sourceInfo, nameIndex } = this.#destination;
    try {
      return nameIndex.journal.read(() =>
        compareOffers(
          offered,
          (frame) => this.#compare(frame),
          (first, last) => nameIndex.markAccounted(sourceInfo, first, last),
        ),
      );
    } catch (error) {
      throw toWholeStoreError(error, `Cannot read the store ${root}`, root);
    }
  }

  async readStored({ name }: OfferedFrame, run: RunSlice): Promise<void> {
    await this.#storedChecksum.read(this.#destination.folder.pathOf(name), run);
  }

  /**
   * Returns the checksum of a stored file: undefined if `readStored` has to be called first, and
   * `changed` if the file has changed meanwhile.
   */
  #checksum(path: string, size: number): number | "changed" | undefined {
    const known = this.#storedChecksum.find(path);
    if (known !== undefined || size > this.#readBudget) return known;
    this.#readBudget -= size;
    return fileChecksum(path);
  }

  /** Returns undefined if a file has to be read first. */
  #compare(offered: OfferedFrame): OfferStatus | undefined {
    try {
      return this.#compareStored(offered);
    } catch (error) {
      throw this.#toError(error, offered.name);
    }
  }

  #compareStored(offered: OfferedFrame): OfferStatus | undefined {
    const { sourceInfo, folder, nameIndex } = this.#destination;
    const { name, size, captured } = offered;
    checkPathPart(name, nameIndex.isPortable);
    // The journal holds times of 64 bits, so no stored frame has this one.
    if (BigInt.asIntN(64, captured) !== captured) return "wanted";
    const path = folder.pathOf(name);
    const stored = nameIndex.journal.findOffered(
      sourceInfo.stream,
      sourceInfo.source,
      name,
      captured,
    );
    if (stored === null) return this.#compareRemoved(offered) ?? this.#compareFile(offered, path);
    const status = compareWithRow(stored, sourceInfo, offered);
    if (status !== "same") return status;
    const mismatch = mismatchStatus(stored, sourceInfo, offered);
    const kind = folder.entryKind(name);
    // A link or folder in place of the file counts as stored, unless the sender wants stored bytes
    // verified.
    if (kind === "other") return sourceInfo.verifyStored === true ? mismatch : "stored";
    if (kind === "file") {
      if (sourceInfo.verifyStored === true) {
        if (entryAt(path)?.size !== size) return mismatch;
        const checksum = this.#checksum(path, size);
        // The sender sends the frame, and it is compared then.
        if (checksum === "changed") return "wanted";
        if (checksum === undefined) return undefined;
        if (checksum !== stored.crc32) return mismatch;
      }
      flushExisting(this.#destination, name);
      nameIndex.confirm(sourceInfo, offered, stored);
      return "stored";
    }
    // This session stored the frame, and the file was moved away since. Storing it again would undo
    // that.
    const isOwn = isRepeated(stored, sourceInfo, offered);
    if (sourceInfo.resendRemoved === true && !isOwn) return "wanted";
    flushExisting(this.#destination, name);
    return "removed";
  }

  /**
   * Returns the status of a frame that retention removed. It counts as moved away, so it is not
   * sent again.
   */
  #compareRemoved({ name, size, captured, crc32 }: OfferedFrame): OfferStatus | undefined {
    const { sourceInfo, nameIndex } = this.#destination;
    if (sourceInfo.resendRemoved === true) return undefined;
    const { deletionLog } = nameIndex.journal;
    const removed = deletionLog.find(sourceInfo.stream, sourceInfo.source, name, captured);
    if (removed === null || removed.bytes !== size) return undefined;
    if (crc32 === undefined) return removed.sameTime === 1 ? "removed" : "needsChecksum";
    return removed.crc32 === crc32 ? "removed" : undefined;
  }

  /**
   * Compares with a file that has no row, as a crash between rename and commit leaves it. Records
   * the file if its bytes are the same.
   */
  #compareFile(offered: OfferedFrame, path: string): OfferStatus | undefined {
    const { sourceInfo, folder, nameIndex } = this.#destination;
    const { name, size, crc32 } = offered;
    if (!folder.exists()) return "wanted";
    const existing = entryAt(path);
    if (existing === undefined || !existing.isFile() || sourceInfo.conflict === "replace")
      return "wanted";
    if (existing.size !== size) return "conflict";
    if (crc32 === undefined) return "needsChecksum";
    const checksum = this.#checksum(path, size);
    if (checksum === undefined) return undefined;
    if (checksum === "changed") return "wanted";
    if (checksum !== crc32) return "conflict";
    nameIndex.checkFree(folder.storePathOf(name));
    nameIndex.record(
      folder.storePathOf(name),
      nameIndex.row(sourceInfo, { ...offered, metadata: "", isKey: isKeyFile(path) }, crc32),
    );
    flushExisting(this.#destination, name);
    return "stored";
  }

  recordLoss(first: number, last: number, error: FramesError, name?: string): void {
    const { root, nameIndex, sourceInfo } = this.#destination;
    try {
      // Losses take space on the disk too.
      this.#context.freeSpace.reserve(lossBytes);
      nameIndex.recordLoss(sourceInfo, first, last, error.code, name);
    } catch (failure) {
      throw toWholeStoreError(failure, `Cannot write the store ${root}`, root);
    }
  }
}
