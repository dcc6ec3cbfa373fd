/** Tells whether ffmpeg read a file to its end. */
import { FramesError } from "../../errors.ts";
import type { FfmpegResult } from "./ffmpeg.ts";
import type { VideoInfo } from "./probe.ts";

/**
 * Checks that a file was read to its end, because ffmpeg does not fail on a truncated file.
 *
 * @throws {FramesError} `unreadable`
 */
export function checkCompleteness(
  name: string,
  { failure, message, hasErrors }: FfmpegResult,
  { end, rate }: VideoInfo,
  { count, reached }: { readonly count: number; readonly reached: bigint },
): void {
  const countText = count === 1 ? "1 frame" : `${count} frames`;
  let problem = failure;
  if (problem === undefined && count === 0) problem = "it contains no frame";
  if (problem === undefined && end !== undefined) {
    const endSeconds = Number(reached) / 1e9;
    // Errors that ffmpeg logs may be harmless. Without any, the end in the container may be
    // inexact.
    const tolerance = hasErrors ? 1.5 / (rate ?? 10) : 0.5;
    if (endSeconds < end - tolerance) {
      problem = `it ended after ${countText}, at ${endSeconds.toFixed(2)} of ${end.toFixed(2)} s`;
    }
  } else if (problem !== undefined && count > 0) {
    problem = `${problem} after ${countText}`;
  }
  if (problem === undefined) return;
  throw new FramesError(
    "unreadable",
    `Cannot read ${name} to its end: ${withFfmpegMessage(problem, message)}`,
  );
}

export function withFfmpegMessage(problem: string, message: string): string {
  return message === "" ? problem : `${problem}; ffmpeg printed: ${message}`;
}
