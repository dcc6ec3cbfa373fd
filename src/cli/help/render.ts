/** Renders a page of the manual for a terminal. */
import { padText, wrapText } from "../../common/text-columns.ts";
import { pages } from "./pages.ts";

/** How a page is rendered. */
export interface PageStyle {
  /** Width of the terminal. */
  readonly columns: number;
  /** Whether text may be bold or coloured. */
  readonly colours: boolean;
}

/** Lines longer than this are hard to read. */
const maxColumns = 100;

const minColumns = 40;

const codeIndent = "  ";

/** Stands for a blank inside a code span, where a line must not break. */
const fixedBlank = "\u00a0";

const rowEnd = "\u0001";
const cellEnd = "\u0002";

/** Returns a page as text that fits into the terminal. Lines of code are kept as they are. */
export function renderPage(markdown: string, style: PageStyle): string {
  const columns = Math.min(maxColumns, Math.max(minColumns, style.columns));
  const styled = (open: number, close: number) => (text: string) =>
    style.colours ? `\x1b[${open}m${text}\x1b[${close}m` : text;
  const bold = styled(1, 22);
  const cyan = styled(36, 39);
  const codeSpan = (code: string): string => {
    const fixed = code.replaceAll(" ", fixedBlank);
    return style.colours ? cyan(fixed) : `\`${fixed}\``;
  };
  const text = Bun.markdown.render(
    markdown,
    {
      heading: (children) => `${bold(children)}\n\n`,
      paragraph: (children) => `${wrapText(children, columns)}\n\n`,
      strong: bold,
      emphasis: (children) => children,
      codespan: codeSpan,
      link: (children, { href }) => linkText(children, href, codeSpan),
      code: (children) => `${indentCode(children, bold)}\n\n`,
      list: (children) => `${children}\n`,
      listItem: (children) => `- ${wrapText(children.trim(), columns - 2, "  ")}\n`,
      th: (children) => `${bold(children)}${cellEnd}`,
      td: (children) => `${children}${cellEnd}`,
      tr: (children) => `${children}${rowEnd}`,
      table: (children) => `${formatTable(children, columns)}\n\n`,
    },
    { noHtmlBlocks: true, noHtmlSpans: true },
  );
  // Not every terminal has the character of an ellipsis.
  return `${text.replaceAll(fixedBlank, " ").replaceAll("…", "...").trimEnd()}\n`;
}

/** Returns the text of a link: for another page, the command that shows it. */
function linkText(text: string, href: string, codeSpan: (text: string) => string): string {
  const target = pages.find(({ file }) => href === `${file}.md`);
  if (target !== undefined) {
    const command = codeSpan(`frames help ${target.topic}`);
    return text === target.topic ? command : `${text} (${command})`;
  }
  return /^https?:/.test(href) && text !== href ? `${text} (${href})` : text;
}

/** Indents code. Commands after a prompt are bold. */
function indentCode(code: string, bold: (text: string) => string): string {
  const isConsole = /^\w*\$ /.test(code);
  return code
    .trimEnd()
    .split("\n")
    .map((line) => (isConsole && /^(?:\w*\$|>) /.test(line) ? bold(line) : line))
    .map((line) => (line === "" ? "" : `${codeIndent}${line}`))
    .join("\n");
}

/** Aligns the cells of a table. Its last column is wrapped. */
function formatTable(text: string, columns: number): string {
  const rows = text
    .split(rowEnd)
    .filter((row) => row !== "")
    .map((row) => row.split(cellEnd).slice(0, -1));
  const count = Math.max(...rows.map((row) => row.length));
  const widths = Array.from({ length: count - 1 }, (_, column) =>
    Math.max(...rows.map((row) => Bun.stringWidth(row[column] ?? ""))),
  );
  const left = widths.reduce((sum, size) => sum + size + 2, 0);
  return rows
    .map((row) => {
      const cells = widths.map((size, column) => padText(row[column] ?? "", size + 2));
      const last = wrapText(row[count - 1] ?? "", columns - left, " ".repeat(left));
      return `${cells.join("")}${last}`.trimEnd();
    })
    .join("\n");
}
