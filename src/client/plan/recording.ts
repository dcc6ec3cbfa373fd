/** Plans a session that sends the frames of an MCAP file. */
import { basename, extname } from "node:path";
import { usageError } from "../../errors.ts";
import type { CaptureDefaults } from "../../source/live/iterable-source.ts";
import { type RecordedSource, Recording } from "../../source/recording/recording.ts";
import { keepsNumbers, RecordingSource } from "../../source/recording/recording-source.ts";
import {
  checkNames,
  checkSettingSources,
  createPacer,
  type Plan,
  type PlanOptions,
  resolveStream,
} from "./options.ts";

/** Returns whether a PATH of the command line names an MCAP file, which need not exist. */
export function isRecording(path: string): boolean {
  return extname(path).toLowerCase() === ".mcap";
}

/**
 * @param name of the source, if the user chose one
 * @throws {FramesError} `missing`, `unreadable`, `usage`
 */
export async function planRecording(
  path: string,
  name: string | undefined,
  options: PlanOptions,
  naming: CaptureDefaults,
): Promise<Plan> {
  const recording = new Recording(path);
  recording.acquire();
  try {
    await recording.scan();
    const recorded = recording.sources;
    if (name !== undefined && recorded.length > 1) {
      throw usageError(
        `Cannot name the source ${name}: ${path} has ${recorded.length} sources; leave --source out`,
      );
    }
    const fallback = recording.stream ?? basename(path, extname(path));
    const streams =
      options.stream === undefined ? { stream: fallback } : resolveStream(options.stream, naming);
    checkNames(streams.stream, name === undefined ? [] : [name]);
    const pace = createPacer(options);
    checkSettingSources(
      options,
      recorded.map((source) => name ?? source.name),
    );
    const sources = recorded.map((source) => new RecordingSource(recording, source, name));
    return {
      ...streams,
      sources: sources.map(pace),
      skipped: recording.skipped,
      unreadable: recording.faults,
      filteredOut: 0,
      session: recording.sessionFor(streams.stream),
      media: recorded.map((source) => ({
        source: name ?? source.name,
        description: describe(source),
      })),
    };
  } finally {
    recording.release();
  }
}

/** Tells what the frames of a source are called. */
function describe(source: RecordedSource): string {
  const { isOwn, messages } = source;
  const count = `${messages.length} ${messages.length === 1 ? "frame" : "frames"}`;
  if (keepsNumbers(source)) return `${count}, with names and numbers of the file`;
  if (isOwn) return `${count} of several sessions: numbered again in the order of the file`;
  return `${count} of another program: named by time, and numbered in the order of the file`;
}
