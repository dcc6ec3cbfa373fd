/** Describes what becomes of a video, for people. */
import type { VideoInfo } from "./probe.ts";
import type { Transcoding } from "./transcode.ts";

/** Returns text such as `1920x1080 h264 at 30 fps, becomes JPEG of quality 2, about 12 MB/s`. */
export function describeVideo(video: VideoInfo, transcoding: Transcoding): string {
  const { codec, rate } = video;
  const { label, frameBytes, alternative } = transcoding;
  const rateText = rate === undefined ? "" : ` at ${Number(rate.toFixed(2))} fps`;
  const parts = [`${formatDimensions(video)} ${codec}${rateText}`, label];
  if (frameBytes !== undefined) parts.push(formatCost(frameBytes, rate));
  const text = parts.join(", ");
  if (alternative === undefined) return text;
  const cost =
    alternative.frameBytes === undefined ? "less" : formatCost(alternative.frameBytes, rate);
  return `${text} (${alternative.how}: ${cost})`;
}

export function formatDimensions({ width, height }: VideoInfo): string {
  return `${width}x${height}`;
}

function formatCost(frameBytes: number, rate: number | undefined): string {
  return rate === undefined
    ? `about ${formatAmount(frameBytes)} a frame`
    : `about ${formatAmount(frameBytes * rate)}/s`;
}

/** Formats bytes as `12 MB`, `0.3 MB` or `40 kB`. */
export function formatAmount(bytes: number): string {
  if (bytes < 100_000) return `${Math.ceil(bytes / 1000)} kB`;
  const megabytes = bytes / 1e6;
  return `${megabytes < 10 ? Number(megabytes.toFixed(1)) : Math.round(megabytes)} MB`;
}
