/** Bytes of an env file; one that is larger is refused (API field: EnvVarSource.fileKeyRef). */
export const maxEnvFileBytes = 64 * 1024;
const maxEnvValueBytes = 32 * 1024;

/** What a lookup in an env file found; an assignment of nothing counts as missing, as upstream. */
export type EnvFileLookup =
  | { readonly kind: "found"; readonly value: string }
  | { readonly kind: "missing" }
  /** The file is none of this form; `line` counts from 1. */
  | { readonly kind: "malformed"; readonly line: number; readonly problem: string };

type Malformed = Extract<EnvFileLookup, { kind: "malformed" }>;

interface Word {
  readonly kind: "word";
  readonly value: string;
  /** Index of the first line after it. */
  readonly next: number;
}

function malformed(index: number, problem: string): Malformed {
  return { kind: "malformed", line: index + 1, problem };
}

/** Reads a single-quoted word that may go on over several lines. */
function quoted(lines: readonly string[], start: number, first: string): Word | Malformed {
  let value = "";
  let index = start;
  for (let rest: string | undefined = first; rest !== undefined; rest = lines[index]) {
    const close = rest.indexOf("'");
    if (close >= 0) {
      const after = rest.slice(close + 1).replace(/^[ \t]+/, "");
      if (after !== "" && !after.startsWith("#")) {
        return malformed(index, "unexpected content after closing quote");
      }
      return { kind: "word", value: value + rest.slice(0, close), next: index + 1 };
    }
    value += `${rest}\n`;
    index += 1;
  }
  return malformed(start, "unclosed single quote");
}

/** Reads what stands after the equals sign of line `index`. */
function assigned(lines: readonly string[], index: number, text: string): Word | Malformed {
  // As in a shell: NAME= 'x' assigns nothing.
  if (/^[ \t]/.test(text)) return { kind: "word", value: "", next: index + 1 };
  if (!text.startsWith("'")) return malformed(index, "value must be enclosed in single quotes");
  return quoted(lines, index, text.slice(1));
}

function nameProblem(line: string, equals: number): string | undefined {
  const name = line.slice(0, Math.max(equals, 0));
  if (equals < 0) return "missing '='";
  if (name === "") return "empty variable name";
  return /[ \t]$/.test(name) ? "whitespace before '=' is not allowed" : undefined;
}

/**
 * Looks a key up in an env file (KEP-3721): `NAME='text'` assignments in the syntax of a POSIX shell, values always in
 * single quotes, blank lines and comments between them. The first assignment counts; what follows it is not read.
 */
export function lookUpInEnvFile(text: string, key: string): EnvFileLookup {
  const lines = text.split("\n").map((line) => line.replace(/\r$/, ""));
  // What follows the last line feed is no line of its own.
  if (lines.at(-1) === "") lines.pop();
  for (let index = 0; index < lines.length;) {
    const line = (lines[index] ?? "").replace(/^[ \t]+/, "");
    if (line === "" || line.startsWith("#")) {
      index += 1;
      continue;
    }
    const equals = line.indexOf("=");
    const problem = nameProblem(line, equals);
    if (problem !== undefined) return malformed(index, problem);
    const word = assigned(lines, index, line.slice(equals + 1));
    if (word.kind === "malformed") return word;
    if (line.slice(0, equals) === key) return found(word.value, index);
    index = word.next;
  }
  return { kind: "missing" };
}

function found(value: string, index: number): EnvFileLookup {
  if (value === "") return { kind: "missing" };
  if (Buffer.byteLength(value) > maxEnvValueBytes) {
    return malformed(index, `the value is longer than ${maxEnvValueBytes} bytes`);
  }
  return { kind: "found", value };
}
