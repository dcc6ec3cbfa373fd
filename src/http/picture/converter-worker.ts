/** Makes JPEG of frames that are none, in a thread of its own, so that nobody waits for it who sends frames. */
import { convertToJpeg, type ConversionRequest, type ConversionResult } from "./to-jpeg.ts";

declare const self: {
  onmessage: (event: { readonly data: ConversionRequest }) => void;
  postMessage(result: ConversionResult, transfer: ArrayBuffer[]): void;
};

self.onmessage = async ({ data }) => {
  const result = await convertToJpeg(data);
  self.postMessage(result, result.jpeg === undefined ? [] : [result.jpeg.buffer]);
};
