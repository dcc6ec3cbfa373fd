/** Fetches stored frames of one source and shows them. */
/// <reference lib="dom" />
import { codecOfType, type VideoCodec } from "../../video/nal-units.ts";
import { type ApiClient, type FrameJson, frameUrl } from "./api.ts";
import { messageOf } from "./dom.ts";
import { Picture, type PictureOptions } from "./picture.ts";
import { RecordedVideo } from "./recorded-video.ts";

export class StoredPicture {
  readonly picture: Picture;
  readonly #api: ApiClient;
  #video: RecordedVideo | undefined;

  constructor(api: ApiClient, options: Omit<PictureOptions, "mode">) {
    this.#api = api;
    this.picture = new Picture({ ...options, mode: "stored" });
  }

  /**
   * Shows a frame, or why it cannot be shown. Calls must not overlap.
   *
   * @returns whether the frame is shown
   */
  async show(frame: FrameJson): Promise<boolean> {
    const { type, raw } = frame;
    const codec = codecOfType(type);
    try {
      if (codec !== undefined) {
        this.picture.showVideoFrame(await this.#videoOf(codec).picture(frame));
        return true;
      }
      const bytes = await this.#api.bytes(frameUrl(frame));
      return (await this.picture.show({ bytes, type, raw })) === "shown";
    } catch (error) {
      this.picture.showError(messageOf(error));
      return false;
    }
  }

  #videoOf(codec: VideoCodec): RecordedVideo {
    if (this.#video?.codec === codec) return this.#video;
    this.#video?.close();
    return (this.#video = new RecordedVideo(this.#api, codec));
  }

  /** Shows nothing, and frees the memory. */
  clear(): void {
    this.#video?.close();
    this.#video = undefined;
    this.picture.clear();
  }

  /** Frees the memory. The picture must not be used again. */
  close(): void {
    this.#video?.close();
    this.picture.close();
  }
}
