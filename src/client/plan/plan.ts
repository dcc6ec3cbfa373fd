/** Plans a session: finds what to send in paths, pipes and cameras, or in a program's frames. */
import { defined } from "../../common/defined.ts";
import { usageError } from "../../errors.ts";
import type { FrameSource } from "../../frame.ts";
import { monotonicNow } from "../../common/clock.ts";
import { checkFlags } from "./flag-rules.ts";
import { limitNotices } from "./notices.ts";
import { planPaths } from "./paths.ts";
import {
  type CapturedFrames,
  checkSettingSources,
  checkSettingValues,
  checkNames,
  createLiveSource,
  emptyPlan,
  createPacer,
  type Plan,
  type PlanOptions,
  queuePolicyFor,
  captureSettings,
  rawFramesFor,
  type Sendable,
  openSpool,
  resolveStream,
  withSpool,
} from "./options.ts";
import { IterableSource, type CaptureDefaults } from "../../source/live/iterable-source.ts";
import type { Spool } from "../../source/live/spool.ts";

/**
 * Plans a session without connecting to a server.
 *
 * @param started start of the session, in milliseconds since 1970
 * @throws {FramesError} `usage`, `missing`, or the error of a video or camera
 */
export async function plan(
  input: Sendable,
  { onEvent = () => {}, ...others }: PlanOptions,
  started: number,
): Promise<Plan> {
  const options: PlanOptions = { ...others, onEvent: limitNotices(onEvent, monotonicNow) };
  const sourceArgs = typeof options.source === "string" ? [options.source] : (options.source ?? []);
  const naming: CaptureDefaults = { started, clock: Date.now };
  if (typeof input === "string") return await planPaths([input], sourceArgs, options, naming);
  if (isPaths(input, sourceArgs)) return await planPaths(input, sourceArgs, options, naming);
  const isSingle = Symbol.iterator in input || Symbol.asyncIterator in input;
  const [name] = sourceArgs;
  if (
    options.stream === undefined ||
    (isSingle ? name === undefined || sourceArgs.length > 1 : sourceArgs.length > 0)
  ) {
    throw usageError(
      "Cannot send frames of a program: expected the option stream, and source for a single one",
    );
  }
  const framesBySource = isSingle
    ? { [name!]: input as CapturedFrames }
    : (input as Record<string, CapturedFrames>);
  const names = Object.keys(framesBySource);
  const streams = resolveStream(options.stream, naming);
  checkNames(streams.stream, names);
  checkSettingSources(options, names);
  checkSettingValues(options);
  checkFlags(
    names.map((name) => ({ path: name, kind: "program", name })),
    options,
  );
  const spool = openSpool(options.stream, names.length, options, naming);
  return withSpool(spool, () => ({
    ...streams,
    sources: programSources(framesBySource, options, naming, spool),
    ...emptyPlan,
    ...defined({ spool }),
  }));
}

function programSources(
  framesBySource: Record<string, CapturedFrames>,
  options: PlanOptions,
  naming: CaptureDefaults,
  spool: Spool | undefined,
): FrameSource[] {
  const sources = Object.entries(framesBySource).map(([source, frames]) => {
    const policy = queuePolicyFor(source, options, undefined);
    const raw = rawFramesFor(source, options);
    const codec = typeof raw === "string" ? raw : undefined;
    const settings = captureSettings(source, codec, options, naming);
    if (policy === undefined && spool === undefined && raw === undefined) {
      return new IterableSource(source, frames, settings);
    }
    const shape = typeof raw === "object" ? { raw } : {};
    return createLiveSource(source, frames, spool, {
      policy: policy ?? "block",
      settings,
      ...shape,
    });
  });
  return sources.map(createPacer(options));
}

/** An empty list counts as paths if no source is named, or if sources carry paths (`NAME=PATH`). */
function isPaths(
  input: Exclude<Sendable, string>,
  sourceArgs: readonly string[],
): input is readonly string[] {
  if (!Array.isArray(input) || input.some((item) => typeof item !== "string")) return false;
  return (
    input.length > 0 || sourceArgs.length === 0 || sourceArgs.some((text) => text.includes("="))
  );
}
