/** Worker that converts frames to JPEG, so that conversion does not delay receiving. */
import type { FrameToConvert } from "./converter.ts";
import { collectGarbage } from "../../common/memory.ts";
import { type ConversionResult, convertToJpeg } from "./to-jpeg.ts";

declare const self: {
  onmessage: (event: { readonly data: FrameToConvert }) => void;
  postMessage(result: ConversionResult, transfer: ArrayBuffer[]): void;
};

self.onmessage = async ({ data }) => {
  const result = await convertToJpeg(data.bytes, data.raw);
  // A small file may have had many pixels.
  collectGarbage(Infinity);
  self.postMessage(result, result.jpeg === undefined ? [] : [result.jpeg.buffer]);
};
