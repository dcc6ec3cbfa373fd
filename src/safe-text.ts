/** Makes text safe to show: hides secrets, and escapes what would control a terminal. */

/** Stands in the place of a secret. */
const hidden = "…";

/** Environment variables whose values are secrets. */
export const secretVariables: readonly string[] = [
  ...["FRAMES_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"],
  "AWS_CONTAINER_AUTHORIZATION_TOKEN",
  ...["S3_SECRET_ACCESS_KEY", "S3_SESSION_TOKEN"],
];

/** Shorter values are not looked for, because they occur in ordinary words. */
const minSecretLength = 8;

/** Quick check for text that may contain a secret. */
const suspect = /[@=?#]|:\/\/|frames_|bearer|basic|AKIA|ASIA|%40|pass|pwd|secret|token|cookie/i;

/** The rules of `redact`, applied in this order. */
const rules: readonly (readonly [pattern: RegExp, replacement: string])[] = [
  // Keys and tokens of frames, also incomplete ones, and ids of S3 keys.
  [/(frames_(?:key|token)_)[\w-]+/gi, `$1${hidden}`],
  [/\b(?:AKIA|ASIA)[A-Z0-9]{12,}/g, hidden],
  [/\b(bearer|basic)(\s+)(?!$)[\w.~+/=-]{8,}/gi, `$1$2${hidden}`],
  // What follows the colon is no port, so it is a password. It may contain a slash, #, ? or spaces.
  [
    /(?<=[a-z\d+.-]{2}):\/+[^\s/?#@:["']*:(?!\d{0,5}(?:[^\w%]|$))(?:(?!:\/\/)[^"'])*@/gi,
    `://${hidden}@`,
  ],
  [
    /((?<=[a-z\d+.-]{2}):\/+[^\s/?#@:["']*:)(?!PORT\b|\d{0,5}(?:[^\w%]|$))[^\s/?#"'@]+/gi,
    `$1${hidden}`,
  ],
  // The same without a scheme.
  [/(?<![^\s"'(=-])([a-z]?:?\/\/)[^\s/?#"']*@/gi, `$1${hidden}@`],
  // User information of a URL. A password may contain @ and slashes, so the last @ ends it.
  [/(?<=[a-z\d+.-]{2}):\/+[^\s/?#]*@\S*@/gi, `://${hidden}@`],
  [/(?<=[a-z\d+.-]{2}):\/+[^\s/?#]*@/gi, `://${hidden}@`],
  [/%3A%2F%2F[^\s/?#]*%40/gi, `%3A%2F%2F${hidden}%40`],
  // Query and fragment of a URL, up to the punctuation of the sentence around it.
  [/((?<=[a-z\d+.-]{2}):\/+[^\s?#]*[?#])\S+?(?=[;,.:)"'`\]]*(?:\s|$))/gi, `$1${hidden}`],
  // Parameters in the path of a URL, such as /user=admin&password=…
  [/(?<=:\/\S*[^\s=&;/]=)[^\s&;/?#]+?(?=[;,.:)"'`\]]*(?:[\s&;/?#]|$))/g, hidden],
  // USER:PASSWORD@HOST without a scheme. A camera's mode, 640x512:gray16le@30, looks similar.
  [
    /(?<![\w.%+-]|\/\/)(?!(?:\d+x\d+|WxH|WIDTHxHEIGHT):)[\w.%+-]+:(?!\/\/)\S+@(?!\d+(?:[./]\d+)?(?:[^\w.:-]|$))(?=[\w.[-])/g,
    `${hidden}@`,
  ],
  // Parameters outside a URL.
  [/([?&][^\s=&?#"']+=)[^\s&#"']+/g, `$1${hidden}`],
  [
    /((?:passw(?:or)?d|passphrase|passcode|(?<![a-z])pass|pwd|secret|token|api[_-]?key|access[_-]?key|auth(?:orization)?|(?<![a-z])sig|signature|credential)[\w-]*(?:=\\*["']?|\\*["']\s*:\s*\\*["']))[^\s&"'\\]+?(?=[;,.:)\]]*(?:[\s&"'\\]|$))/gi,
    `$1${hidden}`,
  ],
  [/((?:passw(?:or)?d|passphrase|pwd):\s*)[^\s"']+/gi, `$1${hidden}`],
  // The rest of a header.
  [/\b(digest\s+)(?=\w+=).*/gi, `$1${hidden}`],
  [/\b(cookie:\s*)[^\r\n"']+/gi, `$1${hidden}`],
];

/**
 * Hides passwords, tokens and keys in text for people. Everything that is printed, logged, sent as
 * a message or answered over HTTP passes through here.
 */
export function redact(text: string): string {
  let safe = text;
  for (const name of secretVariables) {
    const secret = process.env[name];
    if (secret !== undefined && secret.length >= minSecretLength) {
      safe = safe.replaceAll(secret, hidden);
    }
  }
  if (!suspect.test(safe)) return safe;
  for (const [pattern, replacement] of rules) safe = safe.replace(pattern, replacement);
  return safe;
}

/** Returns whether text contains a secret, so that it must not become a name. */
export function containsSecret(text: string): boolean {
  return redact(text) !== text;
}

// Terminals execute control characters, and bidirectional ones can make a line read differently.
const unprintable = /[\p{Cc}\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]/gu;

/** Escapes all characters of `text` that would control a terminal or begin another line. */
export function printable(text: string): string {
  return text.replace(unprintable, (character) => {
    const code = character.codePointAt(0)!;
    return code < 0x100
      ? `\\x${code.toString(16).padStart(2, "0")}`
      : `\\u${code.toString(16).padStart(4, "0")}`;
  });
}

/**
 * Formats a value as JSON on one line, without characters that control a terminal or end a header.
 * Bigints become decimal strings.
 *
 * @param replace changes text fields, by their name
 */
export function safeJson(value: unknown, replace?: (name: string, text: string) => string): string {
  const json = JSON.stringify(value, (name, item: unknown) => {
    if (typeof item === "bigint") return String(item);
    return typeof item === "string" && replace !== undefined ? replace(name, item) : item;
  });
  // JSON.stringify leaves some of these characters unescaped.
  return json.replace(unprintable, (character) => {
    return `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
  });
}
