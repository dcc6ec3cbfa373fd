/** Server side of a client that receives. Connects a `PlaybackSender`, the journal and a socket. */
import type { KeyEntry } from "../auth/key.ts";
import { asFramesError, FramesError, truncateMessage } from "../errors.ts";
import type { RunSlice } from "../frame.ts";
import type { ServerConnection, ServerContext } from "./server-context.ts";
import { DecodablePlayback } from "./playback/decodable-playback.ts";
import { JournalPlayback } from "./playback/journal-playback.ts";
import { LatestPlayback } from "./playback/latest-playback.ts";
import type { PlaybackRequest } from "./playback/playback-request.ts";
import { monotonicNow } from "../common/clock.ts";
import { countGarbage, release } from "../common/memory.ts";
import type { Connection, ConnectionHandler } from "../net/connection.ts";
import { PlaybackSender } from "../protocol/playback/playback-sender.ts";
import { PrefetchPlayback } from "./playback/prefetch-playback.ts";
import type { FlushSnapshot } from "../protocol/receive/receiver-events.ts";
import type { Playback } from "../protocol/playback/playback.ts";
import { outgoingBufferBytes, WriteBatch } from "../protocol/send/write-batch.ts";
import type { DeletionCandidate } from "../store/journal/deletion-log.ts";
import type { RetentionHold } from "../store/directory/retention.ts";
import type { Decoder } from "../wire/decode.ts";
import type { Done, Hello } from "../wire/messages.ts";

/** Bytes sent to one client before the event loop serves other connections, senders included. */
const maxBytesPerTurn = 1 << 20;

/**
 * If a client confirms no frame for this long, in milliseconds, retention may remove its frames.
 */
const holdTimeoutMs = 60_000;

/**
 * Idle buffers of all connections. A connection keeps a buffer only while its socket has not
 * accepted all of it. So a client that is up to date needs none.
 */
const spareBuffers: Uint8Array<ArrayBuffer>[] = [];
const maxSpareBuffers = 4;

/** Identity of the client, taken from the connection that read HELLO. */
type ClientIdentity = Pick<ServerConnection, "peer" | "since" | "key">;

export class PlaybackConnection implements ConnectionHandler, ServerConnection, RetentionHold {
  readonly peer: string;
  readonly since: Date;
  readonly key: KeyEntry | undefined;
  /** Always undefined: a receiving client has no session that could supersede another. */
  readonly session = undefined;
  readonly flushable: FlushSnapshot = { frames: 0, answers: 0 };
  readonly #server: ServerContext;
  readonly #hello: Hello;
  readonly #request: PlaybackRequest;
  readonly #playback: Playback;
  /** The playback that frames removed by retention are reported to; undefined with `latest`. */
  readonly #journalPlayback: JournalPlayback | undefined;
  /** Fetches the frames of a remote store; undefined for a local one. */
  readonly #prefetch: PrefetchPlayback | undefined;
  /** Position at which the playback starts. */
  readonly #startPosition: number;
  readonly #closed = Promise.withResolvers<void>();
  readonly #unsubscribe: () => void;
  #sender: PlaybackSender | undefined;
  #connection: Connection | undefined;
  #buffer: Uint8Array<ArrayBuffer> | undefined;
  #isWriting = false;
  #isWriteScheduled = false;
  #failure: FramesError | undefined;
  #isReported = false;
  /** Position confirmed at the last check, and the time of its last change. */
  #lastProgress = { position: 0, at: monotonicNow() };

  /** @param hello from a client that may receive */
  constructor(server: ServerContext, { peer, since, key }: ClientIdentity, hello: Hello) {
    this.#server = server;
    this.peer = peer;
    this.since = since;
    this.key = key;
    this.#hello = hello;
    const { stream, sources, cursor, follow = false } = hello;
    const times = { since: parseWireTime(hello.since), until: parseWireTime(hello.until) };
    this.#request = { stream, sources, ...times, cursor, follow };
    const { journalTail } = server;
    if (hello.latest !== true) {
      this.#journalPlayback = new JournalPlayback(journalTail, this.#request);
    }
    const playback = this.#journalPlayback ?? new LatestPlayback(journalTail, this.#request);
    if (journalTail.fetch !== undefined) {
      const onReady = () => this.transmit();
      this.#prefetch = new PrefetchPlayback(playback, journalTail.fetch, onReady);
    }
    const fetched = this.#prefetch ?? playback;
    this.#playback = hello.latest === true ? new DecodablePlayback(fetched) : fetched;
    this.#startPosition = this.#playback.position;
    this.#unsubscribe = journalTail.commitSignal.subscribe(() => this.transmit());
    // With `latest`, older frames are not sent, so they may be removed.
    if (hello.latest !== true) journalTail.holds.add(this);
  }

  /** Returns the first two of the selected sources that have frames. */
  firstSources(run: RunSlice): Promise<string[]> {
    return this.#server.journalTail.reader.sourcesWithFrames(this.#request, 2, run);
  }

  /** Starts to send. `decoder` has read the client's handshake. */
  start(decoder: Decoder): void {
    const { timeoutMs, keys } = this.#server;
    const events = { onWritable: () => this.transmit() };
    const needsKey = keys !== undefined;
    const now = monotonicNow();
    this.#sender = new PlaybackSender(
      this.#hello,
      decoder,
      this.#playback,
      timeoutMs,
      needsKey,
      now,
      events,
    );
  }

  /** Called after the handover, when the connection belongs to this handler. */
  onOpen(connection: Connection): void {
    this.#connection = connection;
    this.#server.add(this);
    const { stream, software = "unknown software" } = this.#hello;
    const key = this.key?.name;
    const { peer } = this;
    this.#server.emit({
      type: "receiving",
      peer,
      stream,
      software: truncateMessage(software),
      key,
    });
    this.transmit();
  }

  needs({ id, stream, source }: Pick<DeletionCandidate, "id" | "stream" | "source">): boolean {
    const { stream: requestedStream, sources } = this.#request;
    if (stream !== requestedStream || (sources !== undefined && !sources.includes(source)))
      return false;
    const isAwaiting = this.#sender?.hasUnsettled === true;
    const confirmed = this.#confirmedPosition(isAwaiting);
    const now = monotonicNow();
    if (confirmed > this.#lastProgress.position || !isAwaiting)
      this.#lastProgress = { position: confirmed, at: now };
    return id > confirmed && now - this.#lastProgress.at < holdTimeoutMs;
  }

  onPassedOver(frame: DeletionCandidate): void {
    if (this.#journalPlayback!.addPassedOver(frame)) return this.transmit();
    const reason = "this client was too slow for --keep, and more of its frames were removed";
    this.fail(new FramesError("timeout", `Cannot report every removed frame: ${reason}`));
  }

  /** The last journal row that the client has confirmed. */
  #confirmedPosition(isAwaiting: boolean): number {
    if (!isAwaiting) return this.#playback.position;
    return Math.max(this.#sender!.position, this.#startPosition);
  }

  /** Whether the playback resumes at the client's cursor; undefined without a cursor. */
  get isResumed(): boolean | undefined {
    const { cursor, latest } = this.#hello;
    return cursor === undefined || latest === true ? undefined : this.#startPosition > 0;
  }

  get isFinished(): boolean {
    return this.#failure !== undefined || this.#connection?.isClosed === true;
  }

  get closed(): Promise<void> {
    return this.#closed.promise;
  }

  get timeoutMs(): number {
    return this.#server.timeoutMs;
  }

  get isPaused(): boolean {
    return this.#sender!.isPaused;
  }

  // A receiving client sends no frames, so it has nothing to flush.

  isFlushDue(): boolean {
    return false;
  }

  ack(): void {}

  isAlive(): Promise<boolean> {
    return Promise.resolve(!this.isFinished);
  }

  /** Sends until the socket is full, nothing is ready, or this turn's share is used up. */
  #write(): void {
    const connection = this.#connection!;
    if (this.#isWriting || connection.isClosed || connection.queuedBytes > 0) return;
    this.#isWriting = true;
    try {
      let remainingBytes = maxBytesPerTurn;
      let lastBytes = 0;
      const buffer = (this.#buffer ??= spareBuffers.pop() ?? new Uint8Array(outgoingBufferBytes));
      while (connection.queuedBytes === 0 && !connection.isClosed && remainingBytes > 0) {
        const out = new WriteBatch(buffer);
        this.#sender!.transmit(out, monotonicNow());
        if (out.length === 0) break;
        connection.send(buffer.subarray(0, out.length));
        if (out.piece !== undefined) connection.send(out.piece);
        lastBytes = out.length + (out.piece?.length ?? 0);
        remainingBytes -= lastBytes;
      }
      if (connection.queuedBytes === 0) this.#releaseBuffer();
      const heldBytes = lastBytes + (this.#prefetch?.prefetchedBytes ?? 0);
      this.#server.setUnreadBytes(this, connection.queuedBytes === 0 ? 0 : heldBytes);
      // No other event would continue the writing.
      if (connection.queuedBytes === 0 && (remainingBytes <= 0 || this.#playback.isBusy))
        this.transmit();
    } catch (error) {
      this.fail(asFramesError(error, "internal"));
    } finally {
      this.#isWriting = false;
    }
  }

  /** Frees the buffer now, because a collection of garbage would come late for so many bytes. */
  #releaseBuffer(): void {
    const buffer = this.#buffer;
    this.#buffer = undefined;
    if (buffer === undefined) return;
    if (spareBuffers.length < maxSpareBuffers) return void spareBuffers.push(buffer);
    release(buffer);
    // JavaScriptCore counts it until the next collection, and allows as much garbage meanwhile.
    countGarbage(outgoingBufferBytes);
  }

  onData(chunk: Uint8Array, now: number): void {
    if (this.#failure !== undefined) return;
    const sender = this.#sender!;
    sender.receive(chunk, now);
    if (!sender.isDone) return;
    this.#reportEnd();
    this.#connection!.finish();
  }

  /** Schedules a write for the client's next turn. */
  transmit(): void {
    if (this.#isWriteScheduled || this.#connection === undefined || this.isFinished) return;
    this.#isWriteScheduled = true;
    void this.#server.workQueue.run(this, () => {
      this.#isWriteScheduled = false;
      this.#write();
    });
  }

  tick(now: number): void {
    const sender = this.#sender!;
    if (this.#failure === undefined && !sender.isDone) sender.tick(now);
  }

  onEnd(): void {
    // The client wants no more frames. Frames without a receipt are sent again on its next
    // connection.
    this.#reportEnd();
    this.#connection!.finish();
  }

  fail(error: FramesError): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    this.release();
    this.#reportEnd(error);
    const connection = this.#connection!;
    // ERROR would follow the queued bytes, which a slow client may not read in time.
    if (connection.queuedBytes > 0 || connection.isClosed) return connection.terminate();
    this.#sender!.fail(error);
    const out = new WriteBatch(new Uint8Array(1 << 17));
    this.#sender!.transmit(out, monotonicNow());
    connection.send(out.bytes);
    connection.finish();
  }

  /** Reports the end of the playback once. */
  #reportEnd(error?: FramesError): void {
    if (this.#isReported) return;
    this.#isReported = true;
    const { peer } = this;
    const { stream } = this.#hello;
    const { counts } = this.#sender!;
    if (error === undefined) {
      return this.#server.emit({ type: "received", peer, stream, counts });
    }
    const { frames, refused } = counts;
    const done: Done = {
      frames: frames + refused,
      stored: frames,
      present: 0,
      refused,
      aborted: 0,
    };
    this.#server.emit({ type: "failed", peer, session: undefined, stream, counts: done, error });
  }

  /** Releases the holds on stored frames and stops reading the journal. */
  release(): void {
    this.#unsubscribe();
    this.#server.journalTail.holds.delete(this);
    this.#sender?.close();
  }

  onClose(error: FramesError | undefined): void {
    this.release();
    this.#releaseBuffer();
    this.#server.remove(this);
    this.#reportEnd(
      error ?? new FramesError("network", "The receiver closed the connection before it was done"),
    );
    this.#closed.resolve();
  }
}

/** Parses a time of HELLO. One beyond 64 bits wraps, as it does in FRAME. */
function parseWireTime(text: string | undefined): bigint | undefined {
  return text === undefined ? undefined : BigInt.asIntN(64, BigInt(text));
}
