// Covers: cli/args/commands.ts

import { describe, expect, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { completions } from "../../../src/cli/args/completions.ts";
import { pages } from "../../../src/cli/help/pages.ts";
import { commands } from "../../../src/cli/args/commands.ts";
import { type Flag, flagsOf } from "../../../src/cli/args/flags.ts";
import { FramesError } from "../../../src/errors.ts";
import { environment, temporaryFolder } from "../../helper/program.ts";

const commandNames = commands.map(({ name }) => name);
const shells = ["bash", "zsh", "fish"];

function words(flag: Flag): string[] {
  return [`--${flag.name}`, ...(flag.short === undefined ? [] : [`-${flag.short}`])];
}

/** Creates a folder with a folder, a folder with a space in its name, and a file. */
function someFolder(): string {
  const folder = temporaryFolder();
  mkdirSync(join(folder, "run7"));
  mkdirSync(join(folder, "run 8"));
  writeFileSync(join(folder, "runner.txt"), "");
  writeFileSync(join(folder, "frames.bash"), completions("bash"));
  writeFileSync(join(folder, "_frames"), completions("zsh"));
  writeFileSync(join(folder, "frames.fish"), completions("fish"));
  return folder;
}

/** Runs a shell command in a folder and returns its output lines, sorted. */
function ask(command: string[], cwd = someFolder()): string[] {
  const { stdout, stderr, exitCode } = Bun.spawnSync(command, { cwd, env: environment() });
  expect([stderr.toString(), exitCode]).toEqual(["", 0]);
  return stdout.toString().split("\n").filter(Boolean).sort();
}

/** Returns the completions that bash offers for the last word of a line. */
function offers(...line: string[]): string[] {
  const script = `
    . ./frames.bash
    COMP_WORDS=("$@")
    COMP_CWORD=$(($# - 1))
    COMPREPLY=()
    _frames
    [ "\${#COMPREPLY[@]}" -eq 0 ] || printf '%s\\n' "\${COMPREPLY[@]}"`;
  return ask(["bash", "--norc", "-c", script, "bash", ...line]);
}

function missing(shell: string): boolean {
  return Bun.which(shell) === null;
}

/** Defines a test that needs a shell. Its name says so if the test is skipped. */
function testWith(shell: string, behaviour: string, check: () => void): void {
  if (missing(shell)) test.skip(`${behaviour} (skipped: needs ${shell})`, check);
  else test(behaviour, check);
}

describe("bash completions", () => {
  testWith("bash", "bash completes frames with the function of the script", () => {
    expect(ask(["bash", "--norc", "-c", ". ./frames.bash && complete -p frames"])).toEqual([
      "complete -o filenames -F _frames frames",
    ]);
  });

  testWith("bash", "bash offers every command", () => {
    expect(offers("frames", "")).toEqual(commandNames.toSorted());
    expect(offers("frames", "se")).toEqual(["send", "serve"]);
    expect(offers("frames", "x")).toEqual([]);
  });

  for (const { name } of commands.filter((command) => command.name !== "completions")) {
    testWith("bash", `bash offers every flag of ${name}`, () => {
      const all = flagsOf(name).flatMap(words);
      const long = all.filter((word) => word.startsWith("--"));
      if (name === "help") return;
      expect(offers("frames", name, "-")).toEqual(all.toSorted());
      expect(offers("frames", name, "--")).toEqual(long.toSorted());
      // Flags are also offered after other words.
      expect(offers("frames", name, "run7", "--q")).toEqual(
        long.filter((word) => word.startsWith("--q")),
      );
    });
  }

  testWith("bash", "bash offers commands and topics after help", () => {
    const topics = pages.map(({ topic }) => topic);
    expect(offers("frames", "help", "")).toEqual([...commandNames, ...topics].sort());
    expect(offers("frames", "help", "ex")).toEqual(["exit-codes"]);
  });

  testWith("bash", "bash offers the supported shells after completions", () => {
    expect(offers("frames", "completions", "")).toEqual(shells.toSorted());
  });

  testWith("bash", "bash offers the actions of the key command", () => {
    const offered = offers("frames", "key", "").filter((word) => !word.startsWith("-"));
    expect(offered).toEqual(["list", "new", "remove", "save"]);
  });

  testWith("bash", "bash offers only folders for a word that does not begin like a flag", () => {
    for (const name of ["send", "serve"]) {
      expect(offers("frames", name, "")).toEqual(["run 8", "run7"]);
      expect(offers("frames", name, "--json", "run7", "")).toEqual(["run 8", "run7"]);
      expect(offers("frames", name, "-").some((word) => !word.startsWith("-"))).toBe(false);
    }
    for (const { name } of commands) {
      if (["send", "serve", "help", "key", "completions"].includes(name)) continue;
      expect(offers("frames", name, "")).toEqual(flagsOf(name).flatMap(words).toSorted());
    }
  });

  testWith("bash", "bash offers only folders after --dir", () => {
    expect(offers("frames", "ls", "--dir", "")).toEqual(["run 8", "run7"]);
    expect(offers("frames", "ls", "run7", "--dir", "run7")).toEqual(["run7"]);
    expect(offers("frames", "ls", "--dir", "runn")).toEqual([]);
    expect(offers("frames", "ls", "--dir", "run7", "--j")).toEqual(["--json"]);
  });

  testWith("bash", "bash offers folders to send and serve, and never files", () => {
    expect(offers("frames", "send", "run7")).toEqual(["run7"]);
    expect(offers("frames", "serve", "run7")).toEqual(["run7"]);
    expect(offers("frames", "send", "runn")).toEqual([]);
    expect(offers("frames", "ls", "run7")).toEqual([]);
  });

  testWith("bash", "bash offers a folder with a space in its name as one word", () => {
    expect(offers("frames", "send", "run")).toEqual(["run 8", "run7"]);
  });

  testWith("bash", "bash offers nothing after an unknown command", () => {
    expect(offers("frames", "frobnicate", "")).toEqual([]);
  });

  testWith("bash", "bash completions leave no variables behind", () => {
    const script = `. ./frames.bash; before=$(compgen -v | sort)
      COMP_WORDS=(frames send "") COMP_CWORD=2; _frames
      comm -13 <(echo "$before") <(compgen -v | sort) | grep -v "^COMP\\|^before$\\|^BASH\\|^_$" || true`;
    expect(ask(["bash", "--norc", "-c", script])).toEqual([]);
  });
});

describe("zsh completions", () => {
  testWith("zsh", "zsh reads the completion script without an error", () => {
    expect(ask(["zsh", "-f", "-n", "_frames"])).toEqual([]);
    const script = "autoload -U compinit && compinit -D -u && . ./_frames && echo $_comps[frames]";
    expect(ask(["zsh", "-f", "-c", script])).toEqual(["_frames"]);
  });

  test("the completion script of zsh quotes the text of flags and commands", () => {
    for (const line of completions("zsh").split("\n")) {
      // Apart from escaped ones, quotes are balanced.
      expect([line, line.replaceAll("'\\''", "").split("'").length % 2]).toEqual([line, 1]);
    }
  });
});

describe("fish completions", () => {
  testWith("fish", "fish offers commands and flags", () => {
    const offered = (line: string): string[] =>
      ask(["fish", "--no-config", "-c", `. ./frames.fish; complete -C '${line}'`]).map(
        (found) => found.split("\t")[0]!,
      );
    expect(offered("frames ")).toEqual(commandNames.toSorted());
    for (const { name } of commands) {
      const long = flagsOf(name).map((flag) => `--${flag.name}`);
      expect(offered(`frames ${name} --`)).toEqual(long.toSorted());
    }
  });
});

describe("completions", () => {
  for (const shell of [undefined, "", "tcsh", "BASH", "constructor", "toString", "__proto__"]) {
    test(`completions for ${JSON.stringify(shell) ?? "no shell"} are a usage error`, () => {
      let error: unknown;
      try {
        expect(completions(shell)).toBeUndefined();
      } catch (caught) {
        error = caught;
      }
      expect(error).toBeInstanceOf(FramesError);
      expect((error as FramesError).code).toBe("usage");
      expect((error as FramesError).message).toBe(
        `Cannot print completions: expected bash, zsh or fish, as in frames completions bash; current value is ${JSON.stringify(shell ?? "")}`,
      );
    });
  }

  test("each completion script ends with a line break", () => {
    for (const shell of shells) expect(completions(shell)).toEndWith("\n");
  });
});
