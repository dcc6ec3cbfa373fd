/**
 * Reads a profile from the files that AWS's programs share, `~/.aws/config` and
 * `~/.aws/credentials` (AWS SDKs and Tools Reference Guide, "Using shared config and credentials
 * files to globally configure AWS SDKs and tools").
 */
import { join } from "node:path";
import { usageError } from "../../../errors.ts";
import { type Environment, firstSet } from "./environment.ts";
import { readTextFile } from "./text-file.ts";

/** A profile, with the settings of both files. */
export interface SharedProfile {
  readonly name: string;
  /** Values by lower-case name. Those of the credentials file win. */
  readonly settings: ReadonlyMap<string, string>;
  /** Path of the file that the keys are in, or should be in. */
  readonly keysPath: string;
}

type Settings = Map<string, string>;

/** Largest file that is read, in bytes. */
const maxFileBytes = 1 << 20;

const keySettings = ["aws_access_key_id", "aws_secret_access_key", "aws_session_token"];

/**
 * Returns the profile that `AWS_PROFILE` names, or the default one if there is one.
 *
 * @throws {FramesError} `usage` if a file cannot be read, or neither has the named profile
 */
export function readSharedProfile(environment: Environment): SharedProfile | undefined {
  const configPath = sharedPath(environment, "AWS_CONFIG_FILE", "config");
  const keysPath = sharedPath(environment, "AWS_SHARED_CREDENTIALS_FILE", "credentials");
  const config = parseSections(readFile(configPath));
  const keys = parseSections(readFile(keysPath));
  const wanted = firstSet(environment, "AWS_PROFILE");
  const name = wanted ?? "default";
  // Only the default profile may lack the word before its name.
  const inConfig =
    config.get(`profile ${name}`) ?? (name === "default" ? config.get(name) : undefined);
  const inKeys = keys.get(name);
  if (inConfig === undefined && inKeys === undefined) {
    if (wanted === undefined) return undefined;
    const state = `neither ${configPath} nor ${keysPath} has it; check AWS_PROFILE`;
    throw usageError(`Cannot use the profile ${wanted}: ${state}`);
  }
  const settings = new Map(inConfig);
  const hasKeys = inKeys?.has("aws_access_key_id") === true;
  // A key and a token of different files do not belong together.
  if (hasKeys) for (const setting of keySettings) settings.delete(setting);
  for (const [setting, value] of inKeys ?? []) settings.set(setting, value);
  const services = config.get(`services ${settings.get("services") ?? ""}`);
  const endpoint = services?.get("s3.endpoint_url");
  if (endpoint !== undefined) settings.set("endpoint_url", endpoint);
  const isInConfig = !hasKeys && inConfig?.has("aws_access_key_id") === true;
  return { name, settings, keysPath: (isInConfig ? configPath : keysPath) ?? "~/.aws/credentials" };
}

/** Returns the path of a shared file; undefined if the user has no home directory. */
function sharedPath(environment: Environment, variable: string, file: string): string | undefined {
  const path = firstSet(environment, variable);
  const home = firstSet(environment, "HOME", "USERPROFILE");
  if (path === undefined) return home === undefined ? undefined : join(home, ".aws", file);
  return home === undefined ? path : path.replace(/^~(?=[\\/])/, () => home);
}

function readFile(path: string | undefined): string {
  return (path === undefined ? undefined : readTextFile(path, maxFileBytes)) ?? "";
}

/**
 * Returns the settings by section. Sections of the same name are joined, and of settings of the
 * same name the last one with a value counts. Indented lines below a setting without a value belong
 * to it, and are named `SETTING.NAME`.
 */
function parseSections(text: string): Map<string, Settings> {
  const sections = new Map<string, Settings>();
  let settings: Settings | undefined;
  let parent = "";
  for (const line of text.split(/\r?\n|\r/)) {
    if (/^\s*(?:[#;]|$)/.test(line)) continue;
    const header = /^\s*\[([^\]]*)\]/.exec(line)?.[1];
    if (header !== undefined) {
      const name = header
        .trim()
        .replace(/\s+/, " ")
        .replace(/ (["'])([^"']*)\1$/, " $2");
      settings = sections.get(name) ?? new Map();
      sections.set(name, settings);
      parent = "";
      continue;
    }
    const equals = line.indexOf("=");
    const name = line.slice(0, equals).trim().toLowerCase();
    if (equals < 0 || name === "" || settings === undefined) continue;
    // A comment begins after a space, so that a value may contain these characters.
    const value = line
      .slice(equals + 1)
      .replace(/\s[#;][^]*$/, "")
      .trim();
    const isNested = /^\s/.test(line) && parent !== "";
    if (value !== "") settings.set(isNested ? `${parent}.${name}` : name, value);
    if (!isNested) parent = value === "" ? name : "";
  }
  return sections;
}
