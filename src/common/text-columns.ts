/** Text in the columns of a terminal, where a character may be two columns wide. */

/** Wraps text at blanks. Lines after the first begin with `indent`. */
export function wrapText(text: string, columns: number, indent = ""): string {
  const lines: string[] = [];
  for (const word of text.split(/[ \n]+/)) {
    const line = lines.at(-1);
    const length = Bun.stringWidth(line ?? "") + 1 + Bun.stringWidth(word);
    if (line === undefined || length > columns) lines.push(word);
    else lines[lines.length - 1] = `${line} ${word}`;
  }
  return lines.join(`\n${indent}`);
}

/** Returns text with blanks after it. */
export function padText(text: string, columns: number): string {
  return text + " ".repeat(Math.max(0, columns - Bun.stringWidth(text)));
}
