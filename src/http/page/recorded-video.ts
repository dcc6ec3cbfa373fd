/** Decodes stored pictures of encoded video, each with what it needs from its key frame on. */
/// <reference lib="dom" />
import { pictureKind, type VideoCodec } from "../../video/nal-units.ts";
import { type ApiClient, type FrameJson, frameUrl } from "./api.ts";
import { VideoPlayer } from "./video-player.ts";

/** Limit of access units that are kept, so that going back does not fetch them again. */
const maxKeptUnits = 2000;
/** Frames of one list of the server. */
const maxListedFrames = 500;

/** Access units of a session with numbers in sequence, from a key frame on. */
interface KeptGroup {
  readonly session: string;
  /** Number of the key frame. */
  readonly first: number;
  readonly units: Uint8Array[];
}

export class RecordedVideo {
  readonly codec: VideoCodec;
  readonly #api: ApiClient;
  readonly #player: VideoPlayer;
  #group: KeptGroup | undefined;
  /** Index in the group of the unit that was decoded last; undefined if the decoder starts anew. */
  #decoded: number | undefined;

  constructor(api: ApiClient, codec: VideoCodec) {
    this.#api = api;
    this.codec = codec;
    this.#player = new VideoPlayer(codec);
  }

  /**
   * Returns the picture of a stored frame, which the caller must close. Calls must not overlap.
   *
   * @throws {ApiError} if the server does not send what is needed
   * @throws {Error} with a message for the user if it cannot be decoded
   */
  async picture(frame: FrameJson): Promise<VideoFrame> {
    const group = (await this.#extend(frame)) ?? (await this.#load(frame));
    const index = frame.number - group.first;
    if (this.#decoded === undefined || this.#decoded >= index) {
      this.#player.close();
      this.#decoded = -1;
    }
    let picture: Promise<VideoFrame | undefined> = Promise.resolve(undefined);
    for (let at = this.#decoded + 1; at <= index; at++) {
      // The pictures in between are needed by the decoder only.
      void picture.then(
        (unused) => unused?.close(),
        () => {},
      );
      picture = this.#player.decode(group.units[at]!);
    }
    this.#decoded = index;
    if (await this.#player.settle(picture)) this.#decoded = undefined;
    const shown = await picture;
    if (shown === undefined) throw new Error("The video is damaged");
    return shown;
  }

  close(): void {
    this.#player.close();
    this.#group = undefined;
    this.#decoded = undefined;
  }

  /** Returns the kept group if it has the frame, or if the frame is the next one. */
  async #extend(frame: FrameJson): Promise<KeptGroup | undefined> {
    const group = this.#group;
    if (group === undefined || group.session !== frame.session) return undefined;
    const index = frame.number - group.first;
    if (index >= 0 && index < group.units.length) return group;
    if (index !== group.units.length || index >= maxKeptUnits) return undefined;
    const unit = await this.#api.bytes(frameUrl(frame));
    if (pictureKind(unit, this.codec)?.isKey !== true) {
      group.units.push(unit);
      return group;
    }
    // The decoder goes on with the new group.
    if (this.#decoded !== undefined) this.#decoded = -1;
    return (this.#group = { session: frame.session, first: frame.number, units: [unit] });
  }

  /** Fetches the access units from the key frame up to a frame. */
  async #load(frame: FrameJson): Promise<KeptGroup> {
    this.#group = undefined;
    this.#decoded = undefined;
    const { first, bytes } = await this.#api.group(frame);
    const sizes = await this.#sizes(frame, first);
    const units: Uint8Array[] = [];
    let start = 0;
    for (const size of sizes) units.push(bytes.subarray(start, (start += size)));
    if (start !== bytes.length) throw new Error("The video is damaged");
    return (this.#group = { session: frame.session, first, units });
  }

  /** Returns the sizes of the access units with the numbers from `first` to that of a frame. */
  async #sizes(frame: FrameJson, first: number): Promise<number[]> {
    const { stream, source, session, number } = frame;
    const sizes = new Map([[number, frame.size]]);
    for (let cursor = frame.cursor; sizes.size < number - first + 1;) {
      const limit = Math.min(maxListedFrames, number - first);
      const query = `before=${encodeURIComponent(cursor)}&limit=${limit}`;
      const { frames } = await this.#api.frames(stream, source, query);
      if (frames.length === 0) break;
      for (const earlier of frames) {
        if (earlier.session === session) sizes.set(earlier.number, earlier.size);
      }
      cursor = frames[0]!.cursor;
      if (sizes.size > maxKeptUnits) break;
    }
    return Array.from({ length: number - first + 1 }, (_, index) => sizes.get(first + index) ?? 0);
  }
}
