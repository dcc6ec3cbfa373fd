/** The table of the options that only some kinds of source can honour. */
import { FramesError, usageError } from "../../errors.ts";
import type { PlanOptions } from "./options.ts";

/** Kinds of source, with how messages name one and several. */
const kindNames = {
  directory: ["a directory", "directories"],
  picture: ["a picture", "pictures"],
  link: ["a symbolic link to a picture", "links"],
  video: ["a video", "videos"],
  pipe: ["a pipe", "pipes"],
  camera: ["a camera", "cameras"],
  url: ["a URL", "URLs"],
  recording: ["a recording", "recordings"],
  program: ["a program", "programs"],
} as const;

export type SourceKind = keyof typeof kindNames;

/** A source of the delivery, as far as it is known before it is opened. */
export interface SourceInput {
  /** Its path, or the name that a program gave it. */
  readonly path: string;
  /** Name in messages, if the path must not be shown. */
  readonly shownAs?: string | undefined;
  readonly kind: SourceKind;
  /** Name of the source; `undefined` if it is found later. */
  readonly name: string | undefined;
}

export interface FlagRule {
  readonly option: keyof PlanOptions;
  readonly flag: string;
  /** Kinds of source that can honour it. */
  readonly kinds: readonly SourceKind[];
  /**
   * Whether every source must be of these kinds. Otherwise one is enough, and the option concerns
   * only the sources that can honour it.
   */
  readonly isForEach?: true;
  /** Whether its values may be `SOURCE=VALUE`. That source must be of these kinds. */
  readonly isPerSource?: true;
  /** A value that every kind honours, because it is what they do anyway. */
  readonly freeValue?: string;
}

/** Options that are not listed are honoured by every kind. */
export const flagRules: readonly FlagRule[] = [
  { option: "include", flag: "--include", kinds: ["directory"] },
  { option: "exclude", flag: "--exclude", kinds: ["directory"] },
  { option: "watch", flag: "--watch", kinds: ["directory"] },
  { option: "move", flag: "--move", kinds: ["directory", "picture"], isForEach: true },
  { option: "dryRun", flag: "--dry-run", kinds: ["directory", "picture"], isForEach: true },
  {
    option: "policy",
    flag: "--policy",
    kinds: ["video", "pipe", "camera", "url", "program"],
    isPerSource: true,
    freeValue: "block",
  },
  { option: "spool", flag: "--spool", kinds: ["pipe", "camera", "url", "program"] },
  { option: "raw", flag: "--raw", kinds: ["pipe", "program"], isPerSource: true },
  { option: "multipart", flag: "--multipart", kinds: ["pipe"] },
  { option: "camera", flag: "--camera", kinds: ["camera"], isPerSource: true },
  { option: "quality", flag: "--quality", kinds: ["video", "camera", "url"], isPerSource: true },
  { option: "lossless", flag: "--lossless", kinds: ["video", "camera", "url"] },
  { option: "convert", flag: "--convert", kinds: ["video", "camera", "url"], isPerSource: true },
  { option: "copyVideo", flag: "--copy-video", kinds: ["video", "camera", "url"] },
];

/** Options that change another one, and mean nothing without it. */
export const dependentFlags = [
  { option: "since", flag: "--since", needs: "watch", needsFlag: "--watch" },
  { option: "settleMs", flag: "--settle", needs: "watch", needsFlag: "--watch" },
  { option: "spoolSize", flag: "--spool-size", needs: "spool", needsFlag: "--spool" },
] as const;

/** Options that make pictures of video. */
const picturesFlags = [
  { option: "convert", flag: "--convert" },
  { option: "quality", flag: "--quality" },
  { option: "lossless", flag: "--lossless" },
] as const;

/**
 * Checks that the sources can honour the options, before any of them is opened.
 *
 * @throws {FramesError} `usage`
 */
export function checkFlags(inputs: readonly SourceInput[], options: PlanOptions): void {
  for (const { option, flag, needs, needsFlag } of dependentFlags) {
    if (valuesOf(options[option]).length > 0 && valuesOf(options[needs]).length === 0) {
      throw usageError(
        `Cannot use ${flag} without ${needsFlag}: add ${needsFlag}, or leave it out`,
      );
    }
  }
  for (const rule of flagRules) {
    const values = valuesOf(options[rule.option]).filter((value) => !isFree(value, rule));
    if (values.length === 0) continue;
    const others = inputs.filter(({ kind }) => !rule.kinds.includes(kind));
    const isNamed = (source: string) => {
      return (
        rule.isPerSource &&
        values.some((value) => typeof value === "string" && value.startsWith(`${source}=`))
      );
    };
    const named = others.find(({ name }) => name !== undefined && isNamed(name));
    if (named !== undefined) throw ruleError(rule, named);
    const isRefused = rule.isForEach ? others.length > 0 : others.length === inputs.length;
    if (isRefused) throw ruleError(rule, others[0]!);
  }
  if (options.multipart === true && valuesOf(options.raw).length > 0) {
    throw usageError(
      "Cannot use --raw with --multipart: write X-Raw in the header of each frame; leave one out",
    );
  }
  for (const { option, flag } of picturesFlags) {
    // A value for one source leaves the others to be copied.
    const isGeneral = (value: unknown): boolean =>
      typeof value !== "string" || !value.includes("=");
    if (options.copyVideo !== true || !valuesOf(options[option]).some(isGeneral)) continue;
    throw usageError(
      `Cannot use both --copy-video and ${flag}: ${flag} makes pictures; leave one out`,
    );
  }
  if (options.dryRun === true && options.watch === true) {
    throw usageError("Cannot use both --dry-run and --watch: leave one out");
  }
}

/** Returns the values of an option; none if it is not given, or a switch that is off. */
function valuesOf(value: unknown): readonly unknown[] {
  if (Array.isArray(value)) return value;
  return value === undefined || value === false ? [] : [value];
}

function isFree(value: unknown, { freeValue }: FlagRule): boolean {
  if (freeValue === undefined || typeof value !== "string") return false;
  return value.slice(value.lastIndexOf("=") + 1) === freeValue;
}

function ruleError({ flag, kinds }: FlagRule, { path, kind, shownAs }: SourceInput): FramesError {
  const allowed = kinds.map((one) => kindNames[one][1]);
  const last = allowed.pop()!;
  const list = allowed.length === 0 ? last : `${allowed.join(", ")} and ${last}`;
  return usageError(
    `Cannot use ${flag} with ${shownAs ?? path}: it is ${kindNames[kind][0]}, and ${flag} is for ${list}; leave ${flag} out`,
  );
}
