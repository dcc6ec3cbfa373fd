// Makes test videos and lists their packets with ffprobe.

import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Capture, CapturedFrame, LostCapture } from "../../src/source/live/iterable-source.ts";
import { within } from "./time.ts";

/** Prefix for the name of a test that needs ffmpeg; empty if it is installed. */
export const needs =
  Bun.which("ffmpeg") === null || Bun.which("ffprobe") === null ? "skipped: needs ffmpeg: " : "";

/** Runs ffmpeg and returns its stdout. */
export function ffmpeg(...words: string[]): Promise<Buffer> {
  return output(["ffmpeg", "-nostdin", "-v", "error", "-y", ...words]);
}

/** Returns sizes and times of the video packets of a file from ffprobe, in order. */
export async function packetsOf(file: string): Promise<{ size: number; seconds: number }[]> {
  const shown = ["-select_streams", "v:0", "-show_entries", "packet=size,pts_time", "-of", "json"];
  const text = await output(["ffprobe", "-v", "error", ...shown, file]);
  const { packets } = JSON.parse(text.toString()) as {
    packets: { size: string; pts_time: string }[];
  };
  return packets.map(({ size, pts_time }) => ({ size: Number(size), seconds: Number(pts_time) }));
}

async function output(command: string[]): Promise<Buffer> {
  const child = Bun.spawn(command, { stdin: "ignore", stderr: "pipe" });
  const [code, bytes, said] = await Promise.all([
    child.exited,
    new Response(child.stdout).bytes(),
    new Response(child.stderr).text(),
  ]);
  if (code !== 0) throw new Error(`${command[0]} ended with ${code}: ${said.trim()}`);
  return Buffer.from(bytes);
}

/** Calls `use` with a temporary folder and removes it afterwards. */
export async function inFolder(use: (folder: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "frames-ffmpeg-"));
  try {
    await use(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Waits for a promise, which must settle before the deadline. */
export function inTime<T>(promise: Promise<T>, what: string): Promise<T> {
  return within(promise, () => `${what} did not come`);
}

/** Returns all frames, or the first `most`, the lost ones, and the error thrown after them. */
export async function framesOf(
  { frames }: { frames: AsyncIterable<Capture> },
  most = Infinity,
): Promise<{ frames: CapturedFrame[]; losses: LostCapture[]; error: unknown }> {
  const found: CapturedFrame[] = [];
  const losses: LostCapture[] = [];
  const iterator = frames[Symbol.asyncIterator]();
  let error: unknown;
  try {
    while (found.length < most) {
      const { done, value } = await inTime(iterator.next(), `frame ${found.length + 1}`);
      if (done === true) break;
      if ("error" in value) losses.push(value);
      else found.push(value);
    }
  } catch (thrown) {
    error = thrown;
  }
  await inTime(Promise.resolve(iterator.return?.()), "giving the frames up");
  return { frames: found, losses, error };
}

/** Returns child processes that still exist, in any state; empty without /proc. */
export async function children(): Promise<{ pid: number; name: string }[]> {
  const found: { pid: number; name: string }[] = [];
  if (process.platform !== "linux") return found;
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    const status = await Bun.file(`/proc/${pid}/status`)
      .text()
      .catch(() => "");
    if (!status.includes(`\nPPid:\t${process.pid}\n`)) continue;
    found.push({ pid: Number(pid), name: /^Name:\t(.*)$/m.exec(status)![1]! });
  }
  return found;
}
