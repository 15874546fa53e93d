import { UnknownRuleError } from "./errors.ts";

const word = /"((?:[^"\\]|\\.)*)"|(\S+)/g;

/** The words of a line of iptables-save; quoted ones without their quotes. */
export function iptablesWords(line: string): string[] {
  return [...line.matchAll(word)].map(
    ([, quoted, plain]) => plain ?? (quoted ?? "").replaceAll(/\\(.)/g, "$1"),
  );
}

/** Reads the words of one rule from left to right. */
export class IptablesReader {
  readonly text: string;
  readonly #words: readonly string[];
  #at = 0;
  #begun = 0;

  constructor(text: string) {
    this.text = text;
    this.#words = iptablesWords(text);
  }

  get done(): boolean {
    return this.#at >= this.#words.length;
  }

  peek(): string {
    return this.#words[this.#at] ?? "";
  }

  /** @throws {UnknownRuleError} at the end. */
  next(): string {
    if (this.done) throw this.unknown();
    const found = this.peek();
    this.#at += 1;
    return found;
  }

  take(wanted: string): boolean {
    if (this.peek() !== wanted) return false;
    this.#at += 1;
    return true;
  }

  /** From here on an error names what is read. */
  begin(): void {
    this.#begun = this.#at;
  }

  /** The error for what is being read. */
  unknown(): UnknownRuleError {
    const read = this.#words.slice(this.#begun, Math.max(this.#at, this.#begun + 1));
    return new UnknownRuleError(read.length === 0 ? "end" : read.join(" "), this.text);
  }
}
