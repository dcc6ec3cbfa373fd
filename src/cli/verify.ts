/** `frames verify`. */
import { bucketPlace, isBucket } from "../store/bucket-place.ts";
import { errors, FramesError } from "../errors.ts";
import { steadyNow } from "../net/connection.ts";
import { type Finding, type Verification, verify, type VerifyOptions } from "../store/verify.ts";
import { verifyBucket } from "../store/verify-bucket.ts";
import type { Arguments } from "./arguments.ts";
import { Progress } from "./progress.ts";
import { printable, say, sayJson, type Terminal } from "./terminal.ts";
import { formatBytes, formatCount } from "./units.ts";

/** @throws {FramesError} as `verify` in the store */
export async function verifyCommand(given: Arguments, terminal: Terminal): Promise<number> {
  const [directory = "received", ...rest] = given.positionals;
  if (rest.length > 0) {
    throw new FramesError(
      "usage",
      `Cannot verify a second directory, ${rest[0]}: one is the limit`,
    );
  }
  const json = given.isOn("json");
  const quiet = given.isOn("quiet");
  const progress = quiet ? undefined : new Progress(terminal, steadyNow);
  try {
    const found = await verifyStore(directory, {
      repair: given.isOn("repair"),
      ignoreMissing: given.isOn("ignore-missing"),
      onFinding: (finding) => {
        progress?.clear();
        if (json) sayJson(terminal, { type: "finding", ...finding });
        else terminal.out(`${findingLine(finding)}\n`);
      },
      onProgress: ({ total, frames, bytes }) => progress?.follow([verified(total, frames, bytes)]),
    });
    progress?.discard();
    if (json) sayJson(terminal, { type: "summary", ...found });
    if (!quiet) for (const line of summaryLines(found, given)) say(terminal, line);
    const wrong = found.missing + found.damaged + found.unknown + found.lost;
    return wrong > 0 ? errors["not-delivered"].exit : 0;
  } finally {
    progress?.discard();
  }
}

function verifyStore(place: string, options: VerifyOptions): Promise<Verification> {
  if (!isBucket(place)) return verify(place, options);
  const { repair, ...more } = options;
  if (repair === true) {
    const hint = "remove what is damaged, and send it again";
    throw new FramesError("usage", `Cannot repair a bucket: ${hint}`);
  }
  return verifyBucket(bucketPlace(place, process.env), more);
}

/** The frames that were looked at, as progress is shown. */
function verified(total: number, frames: number, bytes: number) {
  const none = { present: 0, moved: 0, refused: 0, skipped: 0, lost: 0, part: 0, partOf: 0 };
  const live = { dropped: 0, retried: 0, delays: undefined };
  return {
    name: "verified",
    total,
    captured: frames,
    sent: frames,
    bytes,
    settled: frames,
    settledBytes: bytes,
    ...none,
    ...live,
  };
}

function findingLine({ kind, what, why }: Finding): string {
  return `${kind.padEnd(7)}  ${printable(what)}: ${printable(why)}`;
}

function summaryLines(found: Verification, given: Arguments): string[] {
  const { frames, bytes, missing, damaged, unknown, lost, rebuilt } = found;
  const looked = `${formatCount(frames, "frame")}, ${formatBytes(bytes)}`;
  const lines =
    rebuilt === undefined
      ? []
      : [
          `The journal was malformed: a new one was made, of ${formatCount(rebuilt, "frame")} as they are now`,
        ];
  if (missing + damaged + unknown + lost === 0) return [...lines, `Everything is right: ${looked}`];
  const counts = { missing, damaged, unknown, lost };
  const wrong = Object.entries(counts).flatMap(([what, count]) =>
    count > 0 ? [`${count} ${what}`] : [],
  );
  lines.push(`Not everything is right: ${wrong.join(", ")} (${looked})`);
  if (damaged > 0) {
    lines.push(
      given.isOn("repair")
        ? "Damaged frames were set aside: frames send brings them again"
        : "--repair sets damaged frames aside, so that the next send brings them",
    );
  }
  if (missing > 0) lines.push("--ignore-missing is for frames that were moved away");
  return lines;
}
