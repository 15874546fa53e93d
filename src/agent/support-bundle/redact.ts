import { isSecretKey, removed } from "./secret-keys.ts";

const shortest = 6;

/** How a value may stand in a text: as it is, quoted in JSON, in a URL, as base64. */
function formsOf(value: string): readonly string[] {
  const bytes = Buffer.from(value, "utf8");
  return [
    value,
    JSON.stringify(value).slice(1, -1),
    encodeURIComponent(value),
    bytes.toString("base64"),
    bytes.toString("base64url"),
  ];
}

/** All texts to look for: whole values, and lines of long ones, such as keys. */
function needlesOf(known: Iterable<string>): readonly string[] {
  const found = new Set<string>();
  for (const value of known) {
    const trimmed = value.trim();
    const lines = trimmed.split(/\s*\n\s*/).filter((line) => line.length >= 16);
    for (const part of [trimmed, ...(lines.length > 1 ? lines : [])]) {
      if (part.length < shortest || part.startsWith("-----")) continue;
      for (const form of formsOf(part)) found.add(form);
    }
  }
  return [...found].toSorted((a, b) => b.length - a.length);
}

const keyBlock =
  /-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|$)/g;
const jwt = /\beyJ[\w-]{5,}\.[\w-]*\.?[\w-]*/g;
const bootstrapToken = /\b[a-z0-9]{6}\.[a-z0-9]{16}\b/g;
/** A password may have a slash or an at sign that nobody has encoded; `docker://web@sha256:` has none. */
const userInfo =
  /(:\/\/)(?:[^\s/?#"'<>]*|[^\s/:@"'<>]+:(?!\d+(?:[/\s"',)]|$))[^\s"'<>]*)@(?!sha256:)/g;
const scheme = "(?:(?:bearer|basic|digest|negotiate|token)[ \\t]+)";
const authorization = /\b(bearer|basic)([ \t]+)[\w.~+/=-]{8,}/gi;
const unquoted = `${scheme}?[^\\s,;"'}\\]{[]+`;
const value = `\\\\+"(?:(?!\\\\+").)*(?:\\\\+")?|"(?:[^"\\\\]|\\\\.)*"?|'[^'\\n]*'?|\\[[^\\]\\n]*\\]?|${unquoted}`;
/** A name and what stands between it and its value: `token: `, `"token":"`, `TOKEN=`, `--token `. */
const name =
  /(?:--(?<flag>[\w-]{1,80})[ \t]+(?!--)|(?<key>[\w./-]{1,80})\\*["']?[ \t]*[:=][ \t]*)/g;
const anyValue = new RegExp(value, "iy");
/** Of YAML: what has no quotes goes on to the end of its line. */
const restOfLine = /[^\s|>{["'][^\n]*/y;
const startOfLine = /(?:^|\n)[ \t]*(?:- )?["']?$/;

/** As long and mixed as only keys are: a last resort. */
const opaque = /(?<![\w+/=-])(?=[\w+/=-]*[a-z])(?=[\w+/=-]*[A-Z])(?=[\w+/=-]*\d)[\w+/=-]{40,}/g;

/** Values that say nothing: a mistaken key that has one of them stays readable. */
const plain = /^["']?(?:true|false|null|none|""|\[removed\].*)["']?$/i;

function matchAt(pattern: RegExp, text: string, at: number): string {
  pattern.lastIndex = at;
  return pattern.exec(text)?.[0] ?? "";
}

/** Takes out what stands behind names of secrets. */
function maskNamed(text: string): string {
  const parts: string[] = [];
  let done = 0;
  name.lastIndex = 0;
  for (let found = name.exec(text); found !== null; found = name.exec(text)) {
    const { flag, key } = found.groups ?? {};
    if (!isSecretKey(flag ?? key ?? "")) {
      // The value may be a text with names of its own; with `a: b: c` the second name is one too.
      if (flag === undefined) name.lastIndex = found.index + found[0].trimEnd().length;
      continue;
    }
    const at = name.lastIndex;
    const isLine =
      key !== undefined &&
      found[0].endsWith(": ") &&
      startOfLine.test(text.slice(Math.max(0, found.index - 120), found.index));
    const masked = (isLine ? matchAt(restOfLine, text, at) : "") || matchAt(anyValue, text, at);
    if (masked === "" || plain.test(masked)) continue;
    const quote = /^\\*["']/.exec(masked)?.[0] ?? "";
    parts.push(text.slice(done, at), quote, removed, quote);
    done = at + masked.length;
    name.lastIndex = done;
  }
  parts.push(text.slice(done));
  return parts.join("");
}

/** What is looked for in a text. */
export interface RedactOptions {
  /**
   * Also whatever is as long and mixed as a key; for texts of programs that may print anything. Not for those of the
   * kernel, whose names of chains look alike.
   */
  readonly guess: boolean;
}

/**
 * Makes what takes secrets out of texts: values that are known, and what looks like one by its form or its name.
 *
 * @param known Values of this machine; those below six characters are left alone.
 */
export function createRedactor(
  known: Iterable<string>,
): (text: string, options: RedactOptions) => string {
  const needles = needlesOf(known);
  return (text, { guess }) => {
    let out = text;
    for (const needle of needles) out = out.replaceAll(needle, removed);
    out = out
      .replaceAll(keyBlock, removed)
      .replaceAll(jwt, removed)
      .replaceAll(bootstrapToken, removed)
      .replaceAll(userInfo, `$1${removed}@`)
      .replaceAll(authorization, `$1$2${removed}`);
    out = maskNamed(out);
    return guess ? out.replaceAll(opaque, removed) : out;
  };
}
