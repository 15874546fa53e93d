import { WordReader } from "./word-reader.ts";

const word = /"((?:[^"\\]|\\.)*)"|(\S+)/g;

/** The words of a line of iptables-save; quoted ones without their quotes. */
export function iptablesWords(line: string): string[] {
  return [...line.matchAll(word)].map(
    ([, quoted, plain]) => plain ?? (quoted ?? "").replaceAll(/\\(.)/g, "$1"),
  );
}

/** Reads the words of one rule. */
export class IptablesReader extends WordReader {
  constructor(text: string) {
    super(text, iptablesWords(text), 0);
  }

  /** @throws {UnknownRuleError} at the end. */
  override next(): string {
    if (this.done) throw this.unknown();
    return super.next();
  }
}
