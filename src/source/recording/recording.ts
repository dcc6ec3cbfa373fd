/** An MCAP file whose pictures are sent as frames: finds them, and reads them one by one. */
import { FramesError, usageError } from "../../errors.ts";

import { type McapInput, memoryInput, type Region } from "../../mcap/cursor.ts";
import {
  type FrameFacts,
  largeFrameFacts,
  type MessagePicture,
  pictureDecoder,
  type PictureDecoder,
} from "../../mcap/picture.ts";
import {
  decompressChunk,
  type McapChannel,
  type McapChunk,
  type McapEvent,
  type McapMessage,
  McapReader,
} from "../../mcap/reader.ts";
import { bareFrameEncoding, largeFrameMetadata, recordingMetadata } from "../../mcap/writer.ts";
import type { SkippedPath } from "../source-event.ts";
import { ChunkVerifier } from "./chunk-verifier.ts";
import { RecordingFaults } from "./recording-faults.ts";
import { MessageList, type MessagePosition } from "./recording-index.ts";
import { RecordingInput } from "./recording-input.ts";

/** Limit of frames. Their positions take 20 bytes each. */
const maxFrames = 4_000_000;

/** Milliseconds after which the scan lets other work go on. */
const scanSliceMs = 10;

/** Decompressed chunks kept, because sources take turns in reading them. */
const maxCachedChunks = 2;

/** Limit of the name of a source (SPEC section 12). */
const maxSourceNameBytes = 1024;

/** Smallest frame that is no protobuf message. Smaller messages without a schema are not ours. */
const minBareFrameBytes = 2 ** 30;

/** The frames of one source. */
export interface RecordedSource {
  readonly name: string;
  readonly messages: MessageList;
  /** Session of all its frames; undefined if there are several, or none. */
  readonly session: string | undefined;
  /** Whether all of its messages were written by this software. */
  readonly isOwn: boolean;
}

type MutableSource = { -readonly [K in keyof RecordedSource]: RecordedSource[K] };

/** A picture of the file. */
export interface RecordedPicture extends MessagePicture {
  /** Time of the message in nanoseconds since 1970, unsigned. */
  readonly logTime: bigint;
}

/** A message whose facts come in the record behind it. */
interface BareMessage {
  readonly message: McapMessage;
  readonly position: MessagePosition;
}

export class Recording {
  readonly path: string;
  readonly #input: RecordingInput;
  readonly #reader: McapReader;
  readonly #sources = new Map<string, MutableSource>();
  readonly #faults = new RecordingFaults();
  readonly #skipped: SkippedPath[] = [];
  readonly #decoders = new Map<McapChannel, PictureDecoder | undefined>();
  readonly #chunks: McapChunk[] = [];
  readonly #verifier = new ChunkVerifier(this.#chunks, (...chunk) => this.#picturesOf(...chunk));
  /** Facts of the frames that are no protobuf message, by position. */
  readonly #bareFacts = new Map<string, FrameFacts>();
  readonly #cache = new Map<number, McapInput>();
  readonly #hash = new Bun.CryptoHasher("sha256");
  #stream: string | undefined;
  #bare: BareMessage | undefined;
  #frames = 0;
  #users = 0;

  /** @throws {FramesError} `missing`, `unreadable` */
  constructor(path: string) {
    this.path = path;
    this.#input = new RecordingInput(path);
    try {
      this.#reader = new McapReader(this.#input);
    } catch (error) {
      this.#input.close();
      throw new FramesError("unreadable", `Cannot send ${path}: ${(error as Error).message}`);
    }
  }

  /** Stream that the file was made from, if it says so. */
  get stream(): string | undefined {
    return this.#stream;
  }

  get sources(): readonly RecordedSource[] {
    return [...this.#sources.values()];
  }

  /** Parts that cannot be read. */
  get faults(): readonly SkippedPath[] {
    return this.#faults.lines();
  }

  /** Channels that have no pictures. */
  get skipped(): readonly SkippedPath[] {
    return this.#skipped;
  }

  /**
   * Finds the frames. Call it once.
   *
   * @throws {FramesError} `unreadable` if there are too many
   */
  async scan(): Promise<void> {
    let sliceEnd = performance.now() + scanSliceMs;
    for (const event of this.#reader.read()) {
      this.#onEvent(event);
      if (performance.now() < sliceEnd) continue;
      await new Promise((resolve) => setImmediate(resolve));
      sliceEnd = performance.now() + scanSliceMs;
    }
  }

  #onEvent(event: McapEvent): void {
    switch (event.type) {
      case "problem":
        return this.#faults.add(this.path, event.message, event.position);
      case "metadata":
        if (event.name === recordingMetadata) this.#stream ??= event.entries.get("stream");
        if (event.name === largeFrameMetadata) this.#addBare(event.entries);
        return;
      case "message": {
        const { message } = event;
        const position = { chunk: this.#indexOf(message.chunk), position: message.position };
        const { schema, messageEncoding } = message.channel;
        const isBare = schema === undefined && messageEncoding === bareFrameEncoding;
        if (isBare) this.#bare = { message, position };
        else this.#addMessage(message, position);
      }
    }
  }

  /** Id of the session in which these frames are sent into a stream: always the same one. */
  sessionFor(stream: string): string {
    return this.#hash.copy().update(stream).digest("hex").slice(0, 32);
  }

  /** Returns the index of a chunk. Messages come in the order of the file. */
  #indexOf(chunk: McapChunk | undefined): number | undefined {
    if (chunk === undefined) return undefined;
    if (this.#chunks.at(-1)?.position !== chunk.position) this.#chunks.push(chunk);
    return this.#chunks.length - 1;
  }

  #addMessage(message: McapMessage, position: MessagePosition): void {
    const decoder = this.#decoderOf(message.channel);
    try {
      if (decoder === undefined) return this.#addUnknown(message);
      this.#addFrame(message, position, decoder(message.data));
    } catch (error) {
      if (!(error instanceof FramesError) || error.code !== "unreadable") throw error;
      this.#addFault(message, error.message);
    }
  }

  #decoderOf(channel: McapChannel): PictureDecoder | undefined {
    if (this.#decoders.has(channel)) return this.#decoders.get(channel);
    const decoder = pictureDecoder(channel);
    this.#decoders.set(channel, decoder);
    if (decoder === undefined && channel.schema !== undefined) {
      const why = `a channel of ${shorten(channel.schema.name)}, not of pictures`;
      this.#skipped.push({ path: `${this.path} ${shorten(channel.topic)}`, why });
    }
    return decoder;
  }

  /** Adds a message that may be a picture, because its channel does not say what it has. */
  #addUnknown(message: McapMessage): void {
    const { schema, messageEncoding } = message.channel;
    if (schema !== undefined) return;
    const encoding = shorten(messageEncoding);
    this.#addFault(message, `its channel has no schema, and the encoding ${encoding}`);
  }

  /** Adds the frame whose message came before its facts. */
  #addBare(entries: ReadonlyMap<string, string>): void {
    const bare = this.#bare;
    const facts = largeFrameFacts(entries);
    this.#bare = undefined;
    if (bare === undefined || facts === undefined) return;
    if (bare.message.data.length < minBareFrameBytes) return;
    this.#bareFacts.set(keyOf(bare.position), facts);
    this.#addFrame(bare.message, bare.position, barePicture(facts, bare.message.data));
  }

  #addFault({ channel, chunk, position }: McapMessage, why: string): void {
    // A position in a decompressed chunk is no position in the file.
    const place = chunk === undefined || chunk.compression === "" ? position : chunk.position;
    this.#faults.add(`${this.path} ${shorten(channel.topic)}`, why, place);
  }

  #addFrame(
    message: McapMessage,
    position: MessagePosition,
    { data, facts }: MessagePicture,
  ): void {
    if (this.#frames === maxFrames) {
      throw usageError(
        `Cannot send ${this.path}: it has more than ${maxFrames} pictures; split it with mcap filter`,
      );
    }
    const name = sourceName(message.channel);
    if (Buffer.byteLength(name) > maxSourceNameBytes) {
      return this.#addFault(message, `its topic has more than ${maxSourceNameBytes} bytes`);
    }
    const source = this.#sourceFor(name, facts);
    if (source.session !== facts?.session) source.session = undefined;
    if (facts === undefined) source.isOwn = false;
    source.messages.add(position, facts?.sequence ?? 0);
    this.#frames++;
    const identity = facts ?? { name: "", crc32: 0, sequence: 0, captured: message.logTime };
    this.#hash.update(
      `${name}\n${identity.name}\n${identity.sequence} ${identity.crc32} ${identity.captured} ${data.length}\n`,
    );
  }

  #sourceFor(name: string, facts: FrameFacts | undefined): MutableSource {
    const known = this.#sources.get(name);
    if (known !== undefined) return known;
    const messages = new MessageList();
    const source = { name, messages, session: facts?.session, isOwn: facts !== undefined };
    this.#sources.set(name, source);
    return source;
  }

  /** @throws {FramesError} `changed` if the file is no longer as it was when it was opened */
  checkUnchanged(): void {
    this.#input.checkUnchanged();
  }

  /** Registers a user, which calls `release`. */
  acquire(): void {
    this.#users++;
  }

  /** Closes the file when its last user is gone. */
  release(): void {
    this.#users--;
    if (this.#users <= 0) this.#input.close();
  }

  /** Returns whether `verify` is to be called before the message is read. */
  needsVerification({ chunk }: MessagePosition): boolean {
    return chunk !== undefined && this.#verifier.isUsable(chunk) === undefined;
  }

  /** Compares the chunk of a message with its checksum. */
  async verify({ chunk }: MessagePosition): Promise<void> {
    if (chunk !== undefined) await this.#verifier.verify(chunk);
  }

  /**
   * Returns the picture of a message.
   *
   * @throws {FramesError} `unreadable`, `changed`
   */
  pictureAt({ chunk, position }: MessagePosition): RecordedPicture {
    this.checkUnchanged();
    if (chunk !== undefined && this.#verifier.isUsable(chunk) === false) {
      const message = "its part of the file has another checksum than it was written with";
      throw new FramesError("unreadable", message);
    }
    const input = chunk === undefined ? this.#input : this.#chunkInput(chunk);
    const of = chunk === undefined ? undefined : this.#chunks[chunk];
    const { channel, data, logTime } = this.#reader.messageAt(input, position, of);
    const facts = this.#bareFacts.get(keyOf({ chunk, position }));
    const picture =
      facts === undefined ? this.#decoders.get(channel)!(data) : barePicture(facts, data);
    return { ...picture, logTime };
  }

  /** Returns whether bytes are a part of the file, so that keeping their place takes no memory. */
  isInFile({ input }: Region): boolean {
    return input === this.#input;
  }

  /** Returns what the positions in a chunk refer to. */
  #chunkInput(index: number): McapInput {
    const chunk = this.#chunks[index]!;
    if (chunk.compression === "") return this.#input;
    const cached = this.#cache.get(index);
    if (cached !== undefined) return cached;
    const input = memoryInput(decompressChunk(chunk));
    if (this.#cache.size === maxCachedChunks) {
      const [oldest] = this.#cache.keys();
      this.#cache.delete(oldest!);
    }
    this.#cache.set(index, input);
    return input;
  }

  *#picturesOf(index: number, chunk: McapChunk): Generator<MessagePicture> {
    for (const { channel, data, position } of this.#reader.messagesIn(chunk)) {
      const facts = this.#bareFacts.get(keyOf({ chunk: index, position }));
      const decoder = this.#decoders.get(channel);
      if (facts !== undefined) yield barePicture(facts, data);
      else if (decoder !== undefined) yield decoder(data);
    }
  }
}

function barePicture(facts: FrameFacts, data: Region): MessagePicture {
  return { facts, data, time: undefined, raw: undefined, extension: "", padding: undefined };
}

function keyOf({ chunk, position }: MessagePosition): string {
  return `${chunk} ${position}`;
}

/** Returns the source for a topic such as `/camera/front`. */
function sourceName({ topic, id }: McapChannel): string {
  const parts = topic.split("/").filter((part) => part !== "");
  return parts.length === 0 ? `channel-${id}` : parts.join("/");
}

/** Cuts a text of the file for a message. */
function shorten(text: string): string {
  return text.slice(0, 200);
}
