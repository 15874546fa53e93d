import { UnknownRuleError } from "./errors.ts";

/** Reads the words of one rule from left to right. */
export class WordReader {
  readonly text: string;
  readonly #words: readonly string[];
  readonly #ahead: number;
  #at = 0;
  #begun = 0;

  /**
   * @param text The rule itself, for errors.
   * @param ahead How many words that were not taken yet an error names besides.
   */
  constructor(text: string, words: readonly string[], ahead: number) {
    this.text = text;
    this.#words = words;
    this.#ahead = ahead;
  }

  get done(): boolean {
    return this.#at >= this.#words.length;
  }

  /** The word that comes next, or the one `ahead` of it; empty at the end. */
  peek(ahead = 0): string {
    return this.#words[this.#at + ahead] ?? "";
  }

  /** Takes a word; empty at the end. */
  next(): string {
    const found = this.peek();
    this.#at += 1;
    return found;
  }

  /** Takes the words if they come next. */
  take(...wanted: readonly string[]): boolean {
    if (!wanted.every((one, index) => this.peek(index) === one)) return false;
    this.#at += wanted.length;
    return true;
  }

  /** From here on an error names what is read. */
  begin(): void {
    this.#begun = this.#at;
  }

  /** The error for what is being read; it names one word at least. */
  unknown(): UnknownRuleError {
    const end = Math.max(this.#at + this.#ahead, this.#begun + 1);
    const read = this.#words.slice(this.#begun, end);
    return new UnknownRuleError(read.length === 0 ? "end" : read.join(" "), this.text);
  }
}
