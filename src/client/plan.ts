/** Finds out what there is to send: directories, pipes and cameras, or frames that a program makes. */
import { FramesError } from "../errors.ts";
import type { FrameSource } from "../frame.ts";
import { planInputs } from "./inputs.ts";
import {
  type CapturedFrames,
  checkAllSettings,
  checkAllValues,
  checkNames,
  liveSource,
  nothingElse,
  pacing,
  type Plan,
  type PlanOptions,
  policyOf,
  type Sendable,
  spoolOf,
  streamsOf,
  withSpool,
} from "./planning.ts";
import { IterableSource, type Naming } from "../source/iterable.ts";
import type { Spool } from "../source/spool.ts";

/**
 * Finds out what would be sent.
 *
 * @param started session's start, in milliseconds since 1970
 * @throws {FramesError} `usage` or `missing`
 */
export async function plan(what: Sendable, options: PlanOptions, started: number): Promise<Plan> {
  const named = typeof options.source === "string" ? [options.source] : (options.source ?? []);
  const naming: Naming = { started, clock: Date.now };
  if (typeof what === "string") return await planInputs([what], named, options, naming);
  if (isPaths(what, named)) return await planInputs(what, named, options, naming);
  const isOne = Symbol.iterator in what || Symbol.asyncIterator in what;
  const [name] = named;
  if (
    options.stream === undefined ||
    (isOne ? name === undefined || named.length > 1 : named.length > 0)
  ) {
    throw new FramesError(
      "usage",
      "Cannot send frames of a program: name the stream, and the one source or all of them",
    );
  }
  const given = isOne
    ? { [name!]: what as CapturedFrames }
    : (what as Record<string, CapturedFrames>);
  const names = Object.keys(given);
  const streams = streamsOf(options.stream, naming);
  checkNames(streams.stream, names);
  checkAllSettings(options, names);
  checkAllValues(options);
  const spool = spoolOf(options.stream, names.length, options, naming);
  return withSpool(spool, () => ({
    ...streams,
    sources: programSources(given, options, naming, spool),
    ...nothingElse,
    ...(spool === undefined ? {} : { spool }),
  }));
}

function programSources(
  given: Record<string, CapturedFrames>,
  options: PlanOptions,
  naming: Naming,
  spool: Spool | undefined,
): FrameSource[] {
  const sources = Object.entries(given).map(([source, frames]) => {
    const policy = policyOf(source, options, undefined);
    if (policy === undefined && spool === undefined) {
      return new IterableSource(source, frames, naming);
    }
    return liveSource(source, frames, policy ?? "block", naming, spool);
  });
  return sources.map(pacing(options));
}

/** An empty list is one of paths if no source is named, or if the paths are in their names. */
function isPaths(
  what: Exclude<Sendable, string>,
  named: readonly string[],
): what is readonly string[] {
  if (!Array.isArray(what) || what.some((item) => typeof item !== "string")) return false;
  return what.length > 0 || named.length === 0 || named.some((text) => text.includes("="));
}
