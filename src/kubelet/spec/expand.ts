/**
 * Replaces `$(NAME)` references the way the API documents it: `$$` is a literal `$`, an unknown name stays as written,
 * an unclosed `$(` is literal text.
 *
 * @param lookup The value of a name, or undefined when it is not known.
 */
export function expandReferences(
  text: string,
  lookup: (name: string) => string | undefined,
): string {
  let out = "";
  let index = 0;
  while (index < text.length) {
    const char = text.charAt(index);
    const next = text.charAt(index + 1);
    if (char !== "$" || next === "") {
      out += char;
      index += 1;
    } else if (next === "$") {
      out += "$";
      index += 2;
    } else if (next === "(") {
      const close = text.indexOf(")", index + 2);
      if (close < 0) {
        out += "$(";
        index += 2;
      } else {
        const name = text.slice(index + 2, close);
        out += lookup(name) ?? `$(${name})`;
        index = close + 1;
      }
    } else {
      out += char + next;
      index += 2;
    }
  }
  return out;
}

/** Names that occur as `$(NAME)` and that `lookup` does not know. */
export function missingReferences(
  text: string,
  lookup: (name: string) => string | undefined,
): readonly string[] {
  const missing: string[] = [];
  expandReferences(text, (name) => {
    const value = lookup(name);
    if (value === undefined) missing.push(name);
    return value;
  });
  return missing;
}
