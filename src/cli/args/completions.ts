/** `frames completions SHELL`: generates shell completions from the table of flags. */
import { usageError } from "../../errors.ts";
import { commands } from "./commands.ts";
import { type Flag, flagsOf } from "./flags.ts";
import { topicNames } from "./help.ts";

/** First arguments to offer after a command. */
const argumentValues: Readonly<Record<string, readonly string[]>> = {
  completions: ["bash", "zsh", "fish"],
  key: ["new", "save", "list", "remove"],
};

const takesPath = new Set(["serve", "send"]);

function flagForms(flag: Flag): string[] {
  return [`--${flag.name}`, ...(flag.short === undefined ? [] : [`-${flag.short}`])];
}

function bash(): string {
  const names = commands.map(({ name }) => name).join(" ");
  const others = commands.filter(({ name }) => name !== "help");
  const cases = others.map(({ name }) => {
    const offered = argumentValues[name] ?? [];
    const own =
      name === "completions" ? offered : [...offered, ...flagsOf(name).flatMap(flagForms)];
    return `    ${name}) words="${own.join(" ")}" ;;`;
  });
  return `_frames() {
  local current="\${COMP_WORDS[COMP_CWORD]}" words
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "${names}" -- "$current"))
    return
  fi
  case "\${COMP_WORDS[1]}" in
${cases.join("\n")}
    help) words="${names} ${topicNames.join(" ")}" ;;
    *) return ;;
  esac
  local IFS=$'\\n'
  if [ "\${COMP_WORDS[COMP_CWORD - 1]}" = --dir ]; then
    COMPREPLY=($(compgen -d -- "$current"))
    return
  fi
  if [ "\${current#-}" = "$current" ]; then
    case "\${COMP_WORDS[1]}" in ${[...takesPath].join("|")})
      COMPREPLY=($(compgen -d -- "$current"))
      return ;;
    esac
  fi
  IFS=$' \\n'
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}
complete -o filenames -F _frames frames
`;
}

function shellQuote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

function zsh(): string {
  const list = commands.map(({ name, summary }) => `    ${shellQuote(`${name}:${summary}`)}`);
  const cases = commands.map(({ name }) => {
    const specs = flagsOf(name).flatMap((flag) =>
      flagForms(flag).map((word) => {
        const repeat = flag.isRepeatable ? "*" : "";
        const value = flag.value === undefined ? "" : `:${flag.value}:`;
        const explained = flag.help
          .replaceAll("[", "(")
          .replaceAll("]", ")")
          .replaceAll(":", "\\:");
        return shellQuote(
          `${repeat}${word}[${explained}]${value.replaceAll("[", "(").replaceAll("]", ")")}`,
        );
      }),
    );
    const rest = takesPath.has(name)
      ? shellQuote("*:directory:_files -/")
      : argumentValues[name] === undefined
        ? shellQuote("*: :")
        : shellQuote(`1:what:(${argumentValues[name].join(" ")})`);
    return `    ${name}) _arguments ${[...specs, rest].join(" ")} ;;`;
  });
  return `#compdef frames
_frames() {
  local -a commands
  commands=(
${list.join("\n")}
  )
  if (( CURRENT == 2 )); then
    _describe command commands
    return
  fi
  local command=$words[2]
  shift words
  (( CURRENT-- ))
  case $command in
${cases.join("\n")}
  esac
}
if [ "$funcstack[1]" = _frames ]; then _frames "$@"; else compdef _frames frames; fi
`;
}

function fish(): string {
  const lines = ["complete -c frames -f"];
  for (const { name, summary } of commands) {
    lines.push(`complete -c frames -n __fish_use_subcommand -a ${name} -d ${shellQuote(summary)}`);
    const when = `-n '__fish_seen_subcommand_from ${name}'`;
    for (const flag of flagsOf(name)) {
      const short = flag.short === undefined ? "" : ` -s ${flag.short}`;
      const value = flag.value === undefined ? "" : " -r";
      lines.push(
        `complete -c frames ${when} -l ${flag.name}${short}${value} -d ${shellQuote(flag.help)}`,
      );
    }
    if (takesPath.has(name)) {
      lines.push(`complete -c frames ${when} -a '(__fish_complete_directories)'`);
    }
    const offered = argumentValues[name]?.join(" ");
    if (offered !== undefined) lines.push(`complete -c frames ${when} -a '${offered}'`);
  }
  return `${lines.join("\n")}\n`;
}

const shells: Record<string, () => string> = { bash, zsh, fish };

/**
 * Returns a script that completes `frames` commands in a shell.
 *
 * @throws {FramesError} `usage` for an unknown shell
 */
export function completions(shell: string | undefined): string {
  const generate = shell !== undefined && Object.hasOwn(shells, shell) ? shells[shell] : undefined;
  if (generate !== undefined) return generate();
  throw usageError(
    `Cannot print completions: expected bash, zsh or fish, as in frames completions bash; current value is ${JSON.stringify(shell ?? "")}`,
  );
}
