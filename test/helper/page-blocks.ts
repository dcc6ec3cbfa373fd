// Takes the pages of the manual (src/cli/help) apart, and compares what commands print with them.

/** One command of a page. */
export interface PageCommand {
  /** Machine that its prompt names, as in `camera$ frames send run7`. */
  readonly machine: string;
  readonly text: string;
  /** Output below the command, up to `^C` if there is one. */
  readonly expected: readonly string[];
  /** Output below `^C`; undefined if the page does not stop the command. */
  readonly afterStop: readonly string[] | undefined;
  /** Lines of the page that hold the output: the first, and the one after the last. */
  readonly lines: readonly [first: number, end: number];
}

/** What a page has its reader do, in order. */
export type PageStep =
  | { readonly type: "command"; readonly command: PageCommand }
  | { readonly type: "file"; readonly name: string; readonly content: string };

/** A fenced block. `info` is the text after the fence, such as `python show.py`. */
export interface PageBlock {
  readonly info: string;
  readonly content: readonly string[];
  /** Index of the first line of the content. */
  readonly line: number;
}

export function pageBlocks(text: string): PageBlock[] {
  const lines = text.split("\n");
  const blocks: PageBlock[] = [];
  for (let index = 0; index < lines.length; index++) {
    const [, info] = /^```(.+)$/.exec(lines[index]!) ?? [];
    if (info === undefined) continue;
    const end = lines.indexOf("```", index + 1);
    if (end < 0) throw new Error(`Line ${index + 1}: the block has no end`);
    blocks.push({ info, content: lines.slice(index + 1, end), line: index + 1 });
    index = end;
  }
  return blocks;
}

/**
 * Returns the steps of a page: the commands of `console` blocks, and the files of blocks that name
 * one. Blocks of other languages are for reading.
 */
export function pageSteps(text: string): PageStep[] {
  return pageBlocks(text).flatMap((block): PageStep[] => {
    if (block.info === "console") {
      return commandsOf(block).map((command) => ({ type: "command", command }));
    }
    const [, name] = /^\w+ ([\w.-]+)$/.exec(block.info) ?? [];
    if (name === undefined) return [];
    return [{ type: "file", name, content: `${block.content.join("\n")}\n` }];
  });
}

const prompt = /^(\w*)\$ (.*)$/;

function commandsOf({ content, line }: PageBlock): PageCommand[] {
  const commands: PageCommand[] = [];
  for (let index = 0; index < content.length;) {
    const [, machine, first] = prompt.exec(content[index]!) ?? [];
    if (first === undefined) throw new Error(`Line ${line + index + 1}: no command before this`);
    let text = first;
    for (index++; content[index]?.startsWith("> ") === true; index++) {
      text += `\n${content[index]!.slice(2)}`;
    }
    const start = index;
    while (index < content.length && !prompt.test(content[index]!)) index++;
    const output = content.slice(start, index);
    const stop = output.indexOf("^C");
    commands.push({
      machine: machine!,
      text,
      expected: stop < 0 ? output : output.slice(0, stop),
      afterStop: stop < 0 ? undefined : output.slice(stop + 1),
      lines: [line + start, line + index],
    });
  }
  return commands;
}

/** Whether a command goes on until it is stopped. */
export function isEndless(text: string): boolean {
  if (/--first\b/.test(text)) return false;
  return /frames serve\b(?!.*--help)|--watch\b|--follow\b|\/dev\/video|rtsp:\/\//.test(text);
}

/** Whether a command only looks, so that it can be repeated until a state has come. */
export function onlyLooks(text: string): boolean {
  return /^(?:frames (?:ls|verify(?! .*--repair))|curl|ls|cat|find|sqlite3)\b/.test(text);
}

/** What differs from run to run, and what stands for it on both sides of a comparison. */
const variable: [pattern: RegExp, name: string][] = [
  [/\bframes_key_[\w-]+/g, "frames_key_KEY"],
  [/\bframes \d+\.\d+\.\d+/g, "frames VERSION"],
  [/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z/g, "TIME"],
  [/\b\d{8}T\d{6}\.\d{3}Z\b/g, "TIME"],
  [/\b\d{4}-\d\d-\d\d\b/g, "DAY"],
  [/\b\d{16,19}\b/g, "NANOSECONDS"],
  [/\b[0-9a-f]{32}\b/g, "ID"],
  [/\b[0-9a-f]{16}\b/g, "ID"],
  [/\b[\d.]+ (?:bytes|kB|MB|GB)\/s/g, "RATE"],
  [/\b[\d.]+\/s/g, "RATE"],
  [/\b\d+ +RATE/g, "RATE"],
  [/\b[\d.]+ (?:s|ms)\b/g, "DURATION"],
  [/:(?:3[2-9]|[4-6]\d)\d{3}\b/g, ":PORT"],
  [/\bprocess \d+/g, "process NUMBER"],
  [/ +/g, " "],
];

/** Replaces what differs from run to run, such as times, rates and keys. */
export function normalize(line: string): string {
  let text = line.trimEnd();
  for (const [pattern, name] of variable) text = text.replaceAll(pattern, name);
  return text;
}

/**
 * Whether `lines` are what a page shows. `…` stands for any text; a line of its own, for any lines.
 *
 * @param mayGoOn whether more lines may follow
 */
export function isShown(
  lines: readonly string[],
  shown: readonly string[],
  mayGoOn = false,
): boolean {
  const [first, ...rest] = shown;
  if (first === undefined) return mayGoOn || lines.length === 0;
  if (first === "…") {
    return (
      lines.some((_, index) => isShown(lines.slice(index), rest, mayGoOn)) || rest.length === 0
    );
  }
  const [line, ...others] = lines;
  return line !== undefined && isSameLine(line, first) && isShown(others, rest, mayGoOn);
}

function isSameLine(line: string, shown: string): boolean {
  const pieces = shown.split("…").map((piece) => RegExp.escape(normalize(piece)));
  // A blank beside the wildcard belongs to the page.
  const pattern = pieces.join(".*").replaceAll("\\x20.*", ".*").replaceAll(".*\\x20", ".*");
  return new RegExp(`^${pattern}$`).test(normalize(line));
}
