/** `frames verify`: checks the frames of a store against its journal. */
import { parseBucketLocation, isBucketLocation } from "../store/bucket/location.ts";
import { errors, usageError } from "../errors.ts";
import { monotonicNow } from "../common/clock.ts";
import { noProgress } from "../protocol/progress.ts";
import type { Finding, Verification, VerifyOptions } from "../store/verify/store-verifier.ts";
import { verify } from "../store/verify/verify-directory.ts";
import { verifyBucket } from "../store/verify/verify-bucket.ts";
import type { Arguments } from "./args/arguments.ts";
import { ProgressDisplay } from "./output/progress.ts";
import { print, printJson, type Terminal } from "./output/terminal.ts";
import { printable, redact } from "../safe-text.ts";
import { formatBytes, formatCount } from "./args/units.ts";

/**
 * Verifies a store, and prints each problem.
 *
 * @returns the exit status
 * @throws {FramesError} as `verify` in the store
 */
export async function verifyCommand(args: Arguments, terminal: Terminal): Promise<number> {
  const [directory = "received", ...rest] = args.positionals;
  if (rest.length > 0) {
    throw usageError(
      `Cannot verify ${rest[0]} too: write one directory, as in frames verify ${directory}`,
    );
  }
  const json = args.isOn("json");
  const quiet = args.isOn("quiet");
  const progress = quiet ? undefined : new ProgressDisplay(terminal, monotonicNow);
  try {
    const result = await verifyStore(directory, {
      repair: args.isOn("repair"),
      ignoreMissing: args.isOn("ignore-missing"),
      accept: args.isOn("accept"),
      onFinding: (finding) => {
        progress?.clear();
        if (json) printJson(terminal, { type: "finding", ...finding });
        else terminal.out(`${findingLine(finding)}\n`);
      },
      onProgress: ({ total, frames, bytes }) =>
        progress?.update([verifyProgress(total, frames, bytes)]),
    });
    progress?.discard();
    if (json) printJson(terminal, { type: "summary", ...result });
    if (!quiet) for (const line of summaryLines(result, args)) print(terminal, line);
    return damageOf(result).length > 0 || result.lost > 0 ? errors["not-delivered"].exitCode : 0;
  } finally {
    progress?.discard();
  }
}

function verifyStore(location: string, options: VerifyOptions): Promise<Verification> {
  if (!isBucketLocation(location)) return verify(location, options);
  const { repair, accept, ...bucketOptions } = options;
  if (accept === true) {
    const hint = "only the journal of a store in a directory can record it; leave --accept out";
    throw usageError(`Cannot accept the losses of a bucket: ${hint}`);
  }
  if (repair === true) {
    const hint = "delete the damaged objects, and send them again";
    throw usageError(`Cannot repair a bucket: ${hint}`);
  }
  return verifyBucket(parseBucketLocation(location, process.env), bucketOptions);
}

/** Turns the verified frames into the progress of a source, for `ProgressDisplay`. */
function verifyProgress(total: number, frames: number, bytes: number) {
  const counts = { capturedCount: frames, sent: frames, bytes, settled: frames };
  return { ...noProgress, name: "verified", total, ...counts, settledBytes: bytes };
}

function findingLine({ kind, what, why }: Finding): string {
  return `${kind.padEnd(7)}  ${printable(what)}: ${printable(redact(why))}`;
}

/** What is wrong with stored frames, such as `3 damaged`. Losses are not: those were never stored. */
function damageOf({ missing, damaged, unknown, unchecked }: Verification): string[] {
  return Object.entries({ missing, damaged, unknown, unchecked }).flatMap(([what, count]) =>
    count > 0 ? [`${count} ${what}`] : [],
  );
}

function summaryLines(result: Verification, args: Arguments): string[] {
  const { frames, bytes, missing, damaged, unchecked, lost, rebuilt } = result;
  const checked = `${formatCount(frames, "frame")}, ${formatBytes(bytes)}`;
  const lines =
    rebuilt === undefined
      ? []
      : [
          `The journal was damaged: made a new one from ${formatCount(rebuilt, "frame")} found in the store`,
        ];
  const damage = damageOf(result);
  if (damage.length > 0) lines.push(`Not everything is right: ${damage.join(", ")} (${checked})`);
  else if (lost === 0) lines.push(`Everything is right: ${checked}`);
  else lines.push(`Every stored frame is right: ${checked}`);
  if (damaged > 0) {
    lines.push(
      args.isOn("repair")
        ? "Moved the damaged frames aside: send them again with frames send"
        : "To move damaged frames aside and send them again: add --repair",
    );
  }
  if (missing > 0) lines.push("If the missing frames were moved away: add --ignore-missing");
  if (unchecked > 0) {
    lines.push(
      "Unchecked frames got new rows from their files, which may have been damaged before: send them again to compare them, or accept them with --accept",
    );
  }
  return [...lines, ...lossLines(result)];
}

/** Losses that are open, and those that need no attention any more. */
function lossLines({ lost, cameLater, accepted }: Verification): string[] {
  const lines: string[] = [];
  if (lost > 0) {
    lines.push(
      `${formatCount(lost, "loss report")}: these frames never came; send them again if they still exist, or accept the losses with --accept`,
    );
  }
  const history = [
    ...(cameLater > 0 ? [`${cameLater} came later`] : []),
    ...(accepted > 0 ? [`${accepted} accepted`] : []),
  ];
  if (history.length > 0) lines.push(`Earlier loss reports: ${history.join(", ")}`);
  return lines;
}
