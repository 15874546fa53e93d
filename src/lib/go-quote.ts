const named: Readonly<Record<string, string>> = {
  "\u0007": "\\a",
  "\b": "\\b",
  "\f": "\\f",
  "\n": "\\n",
  "\r": "\\r",
  "\t": "\\t",
  "\v": "\\v",
  '"': '\\"',
  "\\": "\\\\",
};

/** Letters, marks, numbers, punctuation, symbols; of spaces the ASCII one only. */
const printable = /^[\p{L}\p{M}\p{N}\p{P}\p{S} ]$/u;

function escaped(character: string): string {
  const known = named[character];
  if (known !== undefined) return known;
  if (printable.test(character)) return character;
  const code = character.codePointAt(0) ?? 0;
  const hex = code.toString(16);
  // Half of a surrogate pair is no character.
  if (code >= 0xd800 && code <= 0xdfff) return "\uFFFD";
  if (code < 0x80) return `\\x${hex.padStart(2, "0")}`;
  return code < 0x10000 ? `\\u${hex.padStart(4, "0")}` : `\\U${hex.padStart(8, "0")}`;
}

/** A text in quotes as Go's `%q` writes it: where other programs expect that, JSON's escapes are not the same. */
export function goQuote(text: string): string {
  return `"${Array.from(text, escaped).join("")}"`;
}
