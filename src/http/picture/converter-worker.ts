/** Worker that converts frames to JPEG, so that conversion does not delay receiving. */
import { convertToJpeg, type ConversionRequest, type ConversionResult } from "./to-jpeg.ts";

declare const self: {
  onmessage: (event: { readonly data: ConversionRequest }) => void;
  postMessage(result: ConversionResult, transfer: ArrayBuffer[]): void;
};

self.onmessage = async ({ data }) => {
  const result = await convertToJpeg(data);
  self.postMessage(result, result.jpeg === undefined ? [] : [result.jpeg.buffer]);
};
