/** `frames help`: help on commands, from the tables of commands and flags, and pages on topics. */
import { usageError } from "../../errors.ts";
import { wrapText } from "../../common/text-columns.ts";
import { version } from "../../version.ts";
import { findPage, pages } from "../help/pages.ts";
import { type PageStyle, renderPage } from "../help/render.ts";
import { commands } from "./commands.ts";
import { nearest } from "./arguments.ts";
import { type Flag, flagsOf } from "./flags.ts";

/** Widths in terminal columns. */
const leftColumnWidth = 26;
const lineWidth = 80;

const plainStyle: PageStyle = { columns: lineWidth, colours: false };

/** Formats a term and its explanation, which begins on the next line if the term is too wide. */
function row(left: string, right: string): string {
  const lines = wrapText(right, lineWidth - leftColumnWidth).split("\n");
  const beside = left.length < leftColumnWidth - 2 ? lines.shift()! : "";
  const first = `  ${left.padEnd(beside === "" ? 0 : leftColumnWidth - 2)}${beside}`;
  return [first, ...lines.map((line) => " ".repeat(leftColumnWidth) + line)].join("\n");
}

function flagRow(flag: Flag): string {
  const short = flag.short === undefined ? "" : `-${flag.short}, `;
  const value = flag.value === undefined ? "" : ` ${flag.value}`;
  return row(`${short}--${flag.name}${value}`, flag.help);
}

/** Returns what `frames` without arguments prints. */
export function overview(): string {
  return `frames ${version}: moves image frames between machines over one TCP connection

To receive:        frames serve
To send:           frames send DIR            on the same machine
                   frames send DIR --to HOST  from another: frames help keys
To get them back:  frames receive STREAM [DIR], or - for a pipe

Commands:
${commands.map(({ name, usage, summary }) => row(`${name} ${usage}`.trim(), summary)).join("\n")}

Topics:
${topicRows()}

More: frames help COMMAND, frames help TOPIC
`;
}

function commandHelp(name: string): string | undefined {
  const command = commands.find((one) => one.name === name);
  if (command === undefined) return undefined;
  const { usage, summary, examples, topics } = command;
  const exampleText = examples.length === 0 ? "" : `\nExamples:\n  ${examples.join("\n  ")}\n`;
  return `${wrapText(summary, lineWidth)}

Usage: frames ${`${name} ${usage}`.trim()} [FLAGS]

Flags:
${flagsOf(name).map(flagRow).join("\n")}
${exampleText}${name === "help" ? `\nTopics:\n${topicRows()}\n` : readMore(topics)}`;
}

function readMore(topics: readonly string[]): string {
  const rows = topics.map((topic) => row(`frames help ${topic}`, findPage(topic)!.summary));
  return rows.length === 0 ? "" : `\nRead more:\n${rows.join("\n")}\n`;
}

/** Help topics, in addition to the commands. */
export const topicNames: readonly string[] = pages.map(({ topic }) => topic);

function topicRows(): string {
  return pages.map(({ topic, summary }) => row(topic, summary)).join("\n");
}

/**
 * Returns help on a command or topic, or the overview.
 *
 * @param style of a topic's page
 * @throws {FramesError} `usage` for an unknown topic
 */
export function help(topic: string | undefined, style: PageStyle = plainStyle): string {
  if (topic === undefined) return overview();
  const command = commandHelp(topic);
  if (command !== undefined) return command;
  const page = findPage(topic);
  if (page !== undefined) return renderPage(page.text, style);
  const near = nearest(topic, [...commands.map(({ name }) => name), ...topicNames]);
  const hint = near === undefined ? "see frames help" : `did you mean ${near}?`;
  throw usageError(`No help on ${topic}: ${hint}`);
}
