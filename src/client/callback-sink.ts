/** Receive target that passes frames to a callback, one at a time and each only once. */
import { usageError } from "../errors.ts";
import { UnjournaledTarget } from "./unjournaled-target.ts";
import type { FrameDescription, SourceInfo, FrameWriter, Outcome, RawShape } from "../frame.ts";

/** A complete received frame, its checksum verified. */
export interface ReceivedFrame {
  readonly bytes: Uint8Array;
  readonly source: string;
  /** Unique within session and source. */
  readonly sequence: number;
  /** Session of the client that sent the frame to the server. */
  readonly session: string;
  /** Capture time in nanoseconds since 1970. */
  readonly captured: bigint;
  readonly name: string;
  /** A JSON object as text, or empty. */
  readonly metadata: string;
  readonly crc32: number;
  /** Set for raw frames, whose bytes do not tell their shape. */
  readonly raw?: RawShape;
  /** Set for encoded video: whether a decoder can begin with the frame. */
  readonly isKey?: boolean;
}

/** Bytes queued for the callback above which the connection stops reading. */
const maxPendingBytes = 8 << 20;

/** An output that cannot tell sources apart. */
export type SingleOutput = "pipe" | "video";

interface PendingFrame {
  readonly frame: ReceivedFrame;
  resolve(outcome: Outcome): void;
  reject(error: unknown): void;
}

export class CallbackSink extends UnjournaledTarget {
  readonly location = "the output";
  readonly #onFrame: (frame: ReceivedFrame) => Promise<void> | void;
  /** Set if a second source is an error, because the output cannot tell sources apart. */
  readonly #singleOutput: SingleOutput | undefined;
  #source: string | undefined;
  readonly #pending: PendingFrame[] = [];
  #pendingBytes = 0;
  #isDelivering = false;

  /**
   * @param onFrame called for one frame at a time; a returned promise delays the next call
   * @param singleOutput the output, if it can have one source only
   */
  constructor(
    onFrame: (frame: ReceivedFrame) => Promise<void> | void,
    singleOutput: SingleOutput | undefined,
  ) {
    super();
    this.#onFrame = onFrame;
    this.#singleOutput = singleOutput;
  }

  get isFull(): boolean {
    return this.#pendingBytes > maxPendingBytes;
  }

  override checkNames(stream: string, source: string): void {
    super.checkNames(stream, source);
    this.#source ??= source;
    this.checkSources([this.#source, source]);
  }

  /**
   * Checks that frames of these sources can be told apart.
   *
   * @throws {FramesError} `usage`
   */
  checkSources([first, ...others]: readonly string[]): void {
    const other = others.find((source) => source !== first);
    const output = this.#singleOutput;
    if (output === undefined || other === undefined) return;
    const hint = output === "pipe" ? ", or add --multipart" : "";
    throw usageError(
      `Cannot write ${first} and ${other} to one ${output}: choose one with --source NAME${hint}`,
    );
  }

  protected begin(origin: SourceInfo, description: FrameDescription): FrameWriter {
    const { source, session, raw } = origin;
    const { name, sequence, captured, metadata, size, isKey } = description;
    const bytes = new Uint8Array(size);
    let length = 0;
    return {
      write: (part) => {
        bytes.set(part, length);
        length += part.length;
      },
      finish: (crc32) => {
        this.remember(origin, description);
        const { promise, resolve, reject } = Promise.withResolvers<Outcome>();
        const more = {
          ...(raw === undefined ? {} : { raw }),
          ...(isKey === undefined ? {} : { isKey }),
        };
        const frame = { bytes, source, sequence, session, captured, name, metadata, crc32 };
        this.#pending.push({ frame: { ...frame, ...more }, resolve, reject });
        this.#pendingBytes += size;
        void this.#deliver();
        return promise;
      },
      discard: () => {},
    };
  }

  async #deliver(): Promise<void> {
    if (this.#isDelivering) return;
    this.#isDelivering = true;
    let next: PendingFrame | undefined;
    while ((next = this.#pending[0]) !== undefined) {
      try {
        await this.#onFrame(next.frame);
        next.resolve("stored");
      } catch (error) {
        next.reject(error);
      }
      this.#pending.shift();
      this.#pendingBytes -= next.frame.bytes.length;
    }
    this.#isDelivering = false;
  }
}
