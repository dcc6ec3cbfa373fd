// Finds the texts that a source file has for people: messages, hints, help, labels of the page.

/** A `/` after one of these begins a regular expression and no division. */
const beforePattern = /(?:^|[=([{,;:!&|?+>]|\breturn|\bcase)\s*$/;

/** Texts that are for another program: SQL, HTTP headers, media queries and CSS classes. */
const sql =
  /^\s*(?:SELECT|INSERT|UPDATE|DELETE|CREATE|PRAGMA|ALTER|DROP|BEGIN|COMMIT|ROLLBACK)\b|\bORDER BY\b|\bAND\b|\bWHERE\b| = \?| IN \(|\bFROM\b|^[a-z]+(?:, [a-z0-9]+)+$|^(?:\{\})?(?:, [a-z0-9]+){2,}$|\bNULL AS\b|_?mode = |synchronous = /;
const http =
  /'self'|'none'|=\(\)|charset=|boundary=|max-age=|no-cache|Max-Age|filename\*|^(?:X|Content)-[A-Z]|^bytes \S+\/|^(?:event|HTTP)[:/]|realm=|^Connection: /;
const mediaQuery = /^\((?:min-width|prefers)/;
const className = /\bclass: $|"class", $/;

/** Script templates for shells are longer than any message. */
const maxLines = 4;

/**
 * Returns the texts of at least two words in a TypeScript file, in order. A part that is inserted
 * becomes `{}`; texts inside of such a part are texts of their own.
 */
export function sourceTexts(code: string): string[] {
  const texts: string[] = [];
  let at = 0;

  const add = (text: string, before: string): void => {
    const isForPeople = /[A-Za-z{}]{2,}[^A-Za-z]* [^A-Za-z]*[A-Za-z{}]{2,}/.test(text);
    if (!isForPeople || !/[a-z]{2}/.test(text.replaceAll("{}", ""))) return;
    if (sql.test(text) || http.test(text) || mediaQuery.test(text)) return;
    if (className.test(before)) return;
    if (text.split("\n").length <= maxLines) texts.push(text);
  };

  /** Reads code up to the `}` that ends an inserted part, or to the end of the file. */
  const readCode = (isInserted: boolean): void => {
    let depth = 0;
    while (at < code.length) {
      const rest = code.slice(at, at + 2);
      const character = code[at]!;
      const before = code.slice(Math.max(0, at - 40), at);
      if (rest === "//") at = indexAfter("\n");
      else if (rest === "/*") at = indexAfter("*/");
      else if (character === "/" && beforePattern.test(before)) readPattern();
      else if (character === '"' || character === "'") readString(character, before);
      else if (character === "`") readTemplate(before);
      else {
        if (character === "{") depth++;
        if (character === "}" && depth-- === 0 && isInserted) return;
        at++;
      }
    }
  };

  const indexAfter = (end: string): number => {
    const found = code.indexOf(end, at + 2);
    return found < 0 ? code.length : found + end.length;
  };

  const readPattern = (): void => {
    let isInClass = false;
    for (at++; code[at] !== "/" || isInClass; at++) {
      if (code[at] === "\\") at++;
      else if (code[at] === "[") isInClass = true;
      else if (code[at] === "]") isInClass = false;
    }
    at++;
  };

  const readString = (quote: string, before: string): void => {
    const start = at;
    for (at++; code[at] !== quote; at++) if (code[at] === "\\") at++;
    at++;
    add(code.slice(start + 1, at - 1).replaceAll(`\\${quote}`, quote), before);
  };

  const readTemplate = (before: string): void => {
    let text = "";
    for (at++; code[at] !== "`";) {
      if (code.startsWith("${", at)) {
        at += 2;
        readCode(true);
        at++;
        text += "{}";
      } else {
        if (code[at] === "\\") text += code[at++]!;
        text += code[at++]!;
      }
    }
    at++;
    add(text, before);
  };

  readCode(false);
  return texts;
}
