import { describe, expect, test } from "bun:test";
import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { readSharedProfile } from "../../../../src/store/bucket/credentials/shared-profile.ts";
import { temporaryFolder } from "../../../helper/program.ts";

/** Writes the files of a home directory and returns an environment with it. */
function homeWith(files: { config?: string; credentials?: string }, profile?: string) {
  const home = temporaryFolder();
  mkdirSync(join(home, ".aws"));
  for (const [name, text] of Object.entries(files)) writeFileSync(join(home, ".aws", name), text);
  return { HOME: home, ...(profile === undefined ? {} : { AWS_PROFILE: profile }) };
}

function settingsOf(files: Parameters<typeof homeWith>[0], profile?: string) {
  const found = readSharedProfile(homeWith(files, profile));
  return found && Object.fromEntries(found.settings);
}

const keys = "aws_access_key_id = AKIA1\naws_secret_access_key = secret\n";
const parsedKeys = { aws_access_key_id: "AKIA1", aws_secret_access_key: "secret" };

describe("a shared profile", () => {
  test("it has the settings of both files, and those with keys win", () => {
    const environment = homeWith(
      {
        config: "[profile cam]\nregion=eu-west-1\naws_access_key_id=old\naws_session_token=old\n",
        credentials: `[other]\nregion=x\n[cam]\n${keys}`,
      },
      "cam",
    );
    const { name, settings, keysPath } = readSharedProfile(environment)!;
    // The token in the config file belongs to another key.
    expect(Object.fromEntries(settings)).toEqual({ region: "eu-west-1", ...parsedKeys });
    expect([name, keysPath]).toEqual(["cam", join(environment.HOME, ".aws", "credentials")]);
  });

  test("its keys may be in the config file", () => {
    const environment = homeWith({ config: `[default]\n${keys}` });
    const { settings, keysPath } = readSharedProfile(environment)!;
    expect(Object.fromEntries(settings)).toEqual(parsedKeys);
    expect(keysPath).toBe(join(environment.HOME, ".aws", "config"));
  });

  test("its files may be elsewhere", () => {
    const folder = temporaryFolder();
    writeFileSync(join(folder, "c"), "[default]\nregion = mars\n");
    writeFileSync(join(folder, "k"), `[default]\n${keys}`);
    const paths = { AWS_CONFIG_FILE: join(folder, "c"), AWS_SHARED_CREDENTIALS_FILE: "~/k" };
    const { settings } = readSharedProfile({ HOME: folder, ...paths })!;
    expect(Object.fromEntries(settings)).toEqual({ region: "mars", ...parsedKeys });
  });

  test("there is none without files, without a home, or with the null device", () => {
    expect(readSharedProfile({})).toBeUndefined();
    expect(readSharedProfile({ HOME: temporaryFolder() })).toBeUndefined();
    const path = join(temporaryFolder(), "none", "at", "all");
    expect(readSharedProfile({ HOME: "", AWS_CONFIG_FILE: path })).toBeUndefined();
    if (process.platform !== "win32") {
      expect(readSharedProfile({ AWS_CONFIG_FILE: "/dev/null" })).toBeUndefined();
    }
    expect(settingsOf({ config: "", credentials: "[other]\na=b" })).toBeUndefined();
  });

  test("a profile that AWS_PROFILE names must exist", () => {
    const act = () => readSharedProfile(homeWith({ credentials: `[default]\n${keys}` }, "cam"));
    expect(act).toThrow(/Cannot use the profile cam: neither .*config nor .*credentials has it/);
    // Without the word before it, a section of the config file is no profile.
    expect(() => settingsOf({ config: `[cam]\n${keys}` }, "cam")).toThrow("Cannot use the profile");
  });

  const forms: readonly [what: string, credentials: string][] = [
    ["with a byte order mark", `\uFEFF[default]\n${keys}`],
    ["with CRLF", `[default]\n${keys}`.replaceAll("\n", "\r\n")],
    ["with CR", `[default]\n${keys}`.replaceAll("\n", "\r")],
    ["without an end of line", `[default]\n${keys.trimEnd()}`],
    [
      "with comments",
      `# a = b\n; c = d\n[default] # mine\n  # e = f\n${keys.replace("\n", " # id\n")}`,
    ],
    ["with spaces", `  [ default ]  \n\n${keys.replaceAll(" = ", "   =\t")}`],
    ["with indented settings", `[default]\n${keys.replaceAll(/^/gm, "  ")}`],
    ["with capitals", `[default]\n${keys.replace("aws_access", "AWS_Access")}`],
    [
      "in two sections",
      `[default]\naws_access_key_id = AKIA1\n[x]\na=b\n[default]\naws_secret_access_key = secret\n`,
    ],
    ["with settings that are empty", `[default]\nregion =\n${keys}role_arn=\n`],
    ["twice, of which the last counts", `[default]\naws_access_key_id = old\n${keys}`],
    ["among lines without meaning", `a = b\nhello\n[default]\nhello\n=\n${keys}[broken\n`],
  ];
  for (const [what, credentials] of forms) {
    test(`its keys may be written ${what}`, () => {
      expect(settingsOf({ credentials })).toEqual(parsedKeys);
    });
  }

  test("a value may contain the characters of comments and equals signs", () => {
    const credentials = "[default]\naws_secret_access_key = a#b;c=d==\n";
    expect(settingsOf({ credentials })).toEqual({ aws_secret_access_key: "a#b;c=d==" });
  });

  test("settings may have the names of properties of objects", () => {
    const config = "[default]\n__proto__ = 1\nconstructor = 2\n[__proto__]\nregion = x\n";
    const { settings } = readSharedProfile(homeWith({ config }))!;
    expect([...settings]).toEqual([
      ["__proto__", "1"],
      ["constructor", "2"],
    ]);
  });

  test("[profile default] and quoted names are profiles too", () => {
    const config = `[default]\nregion = a\n[profile default]\nregion = b\n[profile "my cam"]\nregion = c\n`;
    expect(settingsOf({ config })).toEqual({ region: "b" });
    expect(settingsOf({ config }, "my cam")).toEqual({ region: "c" });
  });

  test("the address of S3 in its services section wins, and nested settings do not mix", () => {
    const config = [
      "[default]",
      "s3 =",
      "  max_concurrent_requests = 20",
      "  region = nested",
      "services = local",
      "endpoint_url = http://all:1",
      "[services local]",
      "dynamodb =",
      "  endpoint_url = http://other:1",
      "s3 = ",
      "  endpoint_url = http://ceph:7480",
      "",
    ].join("\n");
    expect(settingsOf({ config })).toMatchObject({ endpoint_url: "http://ceph:7480" });
    expect(settingsOf({ config })).not.toHaveProperty("region");
  });

  test("a file that is unreadable, no file, or too large is an error with its path", () => {
    const large = homeWith({ credentials: "#".repeat((1 << 20) + 1) });
    expect(() => readSharedProfile(large)).toThrow(
      /Cannot read .*credentials: it is no file of at most/,
    );
    const home = temporaryFolder();
    mkdirSync(join(home, ".aws", "config"), { recursive: true });
    expect(() => readSharedProfile({ HOME: home })).toThrow(/Cannot read .*config: /);
    const loop = join(temporaryFolder(), "loop");
    symlinkSync(loop, loop);
    expect(() => readSharedProfile({ AWS_CONFIG_FILE: loop })).toThrow("too many symbolic links");
  });

  test("long lines are read in linear time", () => {
    // Patterns that try each space again would take minutes.
    for (const line of [
      `${" ".repeat(900_000)}x`,
      "a ".repeat(400_000),
      `[${'"'.repeat(900_000)}x]\n[default]`,
      `x = ${" #".repeat(400_000)}\u2028`,
    ]) {
      const parsed = settingsOf({ credentials: `[default]\n${line}\n${keys}` });
      expect(parsed).toMatchObject(parsedKeys);
    }
  });
});
