/** Role of a client that receives: joins a `PlaybackSender`, the journal and the connection. */
import { asFramesError, FramesError, truncateMessage } from "../errors.ts";
import type { PeerConnection, ServerContext } from "./peer-connection.ts";
import type { ConnectionRole } from "./connection-role.ts";
import { DecodablePlayback } from "./playback/decodable-playback.ts";
import { JournalPlayback } from "./playback/journal-playback.ts";
import { LatestPlayback } from "./playback/latest-playback.ts";
import type { PlaybackRequest } from "./playback/playback-request.ts";
import { defined } from "../common/defined.ts";
import { monotonicNow } from "../common/clock.ts";
import { countGarbage, release } from "../common/memory.ts";
import type { AdmittedClient, WelcomeFields } from "../protocol/handshake.ts";
import { PlaybackSender } from "../protocol/playback/playback-sender.ts";
import { PrefetchPlayback } from "./playback/prefetch-playback.ts";
import type { Playback } from "../protocol/playback/playback.ts";
import { outgoingBufferBytes, WriteBatch } from "../protocol/send/write-batch.ts";
import type { DeletionCandidate } from "../store/journal/deletion-log.ts";
import type { RetentionHold } from "../store/directory/retention.ts";
import { type Done, type Hello, videoFeature } from "../wire/messages.ts";

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

export class PlaybackRole implements ConnectionRole, RetentionHold {
  readonly peerName = "receiver";
  readonly hasHello = true;
  readonly stream: string;
  readonly #server: ServerContext;
  readonly #connection: PeerConnection;
  readonly #hello: Hello;
  readonly #request: PlaybackRequest;
  readonly #playback: Playback;
  /** The playback that frames removed by retention are reported to; undefined with `latest`. */
  readonly #journalPlayback: JournalPlayback | undefined;
  /** Fetches the frames of a remote store; undefined for a local one. */
  readonly #prefetch: PrefetchPlayback | undefined;
  /** Position at which the playback starts. */
  readonly #startPosition: number;
  readonly #unsubscribe: () => void;
  #sender: PlaybackSender | undefined;
  #buffer: Uint8Array<ArrayBuffer> | undefined;
  #isWriteScheduled = false;
  /** Position confirmed at the last check, and the time of its last change. */
  #lastProgress = { position: 0, at: monotonicNow() };

  /** @param hello from a client that may receive */
  constructor(server: ServerContext, connection: PeerConnection, hello: Hello) {
    this.#server = server;
    this.#connection = connection;
    this.#hello = hello;
    this.stream = hello.stream;
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

  /** Reads what WELCOME says about the requested frames. */
  async welcomeFields(): Promise<Partial<WelcomeFields>> {
    const { cursor, latest } = this.#hello;
    const { reader } = this.#server.journalTail;
    const { runSlice } = this.#connection;
    const isResuming = cursor !== undefined && latest !== true;
    return {
      fresh: !(await runSlice(() => reader.has(this.#hello))),
      features: ["until", videoFeature],
      // Two are enough for a client that accepts the frames of one source only.
      sources: await reader.sourcesWithFrames(this.#request, 2, runSlice),
      ...defined({
        identity: reader.property("identity"),
        resumed: isResuming ? this.#startPosition > 0 : undefined,
      }),
    };
  }

  /** Starts to send to a client that has got WELCOME. */
  start(client: AdmittedClient): void {
    const { peer, key } = this.#connection;
    const { timeoutMs } = this.#server;
    const onWritable = () => this.transmit();
    const now = monotonicNow();
    const sender = new PlaybackSender(client, this.#playback, timeoutMs, now, onWritable);
    this.#sender = sender;
    this.#server.setBufferedBytes(this.#connection, client.helloBytes);
    this.#server.emit({
      type: "receiving",
      peer,
      stream: this.stream,
      software: truncateMessage(client.hello.software ?? "unknown software"),
      key: key?.name,
    });
    sender.start();
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
    this.#connection.fail(
      new FramesError("timeout", `Cannot report every removed frame: ${reason}`),
    );
  }

  /** The last journal row that the client has confirmed. */
  #confirmedPosition(isAwaiting: boolean): number {
    if (!isAwaiting) return this.#playback.position;
    return Math.max(this.#sender!.position, this.#startPosition);
  }

  get isDone(): boolean {
    return this.#sender!.isDone;
  }

  get isPaused(): boolean {
    return this.#sender!.isPaused;
  }

  /** Schedules a write for the client's next turn. */
  transmit(): void {
    if (this.#isWriteScheduled || this.#sender === undefined || this.#connection.isFinished) return;
    this.#isWriteScheduled = true;
    this.#server.workQueue
      .run(this.#connection, () => this.#write())
      .catch((error: unknown) => this.#connection.fail(asFramesError(error, "internal")));
  }

  /** Sends until the socket is full, nothing is ready, or this turn's share is used up. */
  #write(): void {
    const { socket, isFinished } = this.#connection;
    this.#isWriteScheduled = false;
    if (isFinished || socket.queuedBytes > 0) return;
    let remainingBytes = maxBytesPerTurn;
    let lastBytes = 0;
    const buffer = (this.#buffer ??= spareBuffers.pop() ?? new Uint8Array(outgoingBufferBytes));
    while (socket.queuedBytes === 0 && !socket.isClosed && remainingBytes > 0) {
      const out = new WriteBatch(buffer);
      this.#sender!.transmit(out, monotonicNow());
      if (out.length === 0) break;
      socket.send(buffer.subarray(0, out.length));
      if (out.piece !== undefined) socket.send(out.piece);
      lastBytes = out.length + (out.piece?.length ?? 0);
      remainingBytes -= lastBytes;
    }
    if (socket.queuedBytes === 0) this.#releaseBuffer();
    const heldBytes = lastBytes + (this.#prefetch?.prefetchedBytes ?? 0);
    this.#server.setUnreadBytes(this.#connection, socket.queuedBytes === 0 ? 0 : heldBytes);
    // No other event would continue the writing.
    if (socket.queuedBytes === 0 && (remainingBytes <= 0 || this.#playback.isBusy)) this.transmit();
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

  receive(chunk: Uint8Array, now: number): void {
    this.#sender!.receive(chunk, now);
    if (this.isDone) this.#finish();
  }

  tick(now: number): void {
    this.#sender!.tick(now);
  }

  /**
   * The client wants no more frames. Frames without a receipt are sent again on its next connection.
   */
  onEnd(): void {
    this.#finish();
  }

  #finish(): void {
    const { peer, socket } = this.#connection;
    const { counts } = this.#sender!;
    this.#connection.reportDone({ type: "received", peer, stream: this.stream, counts });
    socket.finish();
  }

  /** Frames that the client has got or refused, as a client that sends would count them. */
  get counts(): Done {
    const { frames, refused } = this.#sender!.counts;
    return { frames: frames + refused, stored: frames, present: 0, refused, aborted: 0 };
  }

  sendError(error: FramesError): void {
    const { socket } = this.#connection;
    // ERROR would follow the queued bytes, which a slow client may not read in time.
    if (socket.queuedBytes > 0 || socket.isClosed) return socket.terminate();
    this.#sender!.fail(error);
    const out = new WriteBatch(new Uint8Array(1 << 17));
    this.#sender!.transmit(out, monotonicNow());
    socket.send(out.bytes);
    socket.finish();
  }

  /** Releases the holds on stored frames and stops reading the journal. */
  stop(): void {
    this.#unsubscribe();
    this.#server.journalTail.holds.delete(this);
    this.#sender?.close();
  }

  onClose(): void {
    this.#releaseBuffer();
  }
}

/** Parses a time of HELLO. One beyond 64 bits wraps, as it does in FRAME. */
function parseWireTime(text: string | undefined): bigint | undefined {
  return text === undefined ? undefined : BigInt.asIntN(64, BigInt(text));
}
