import { UnknownRuleError } from "./errors.ts";

const word = /"[^"]*"|[{};,]|[^\s{};,"]+/g;

/** The words of a line of nft's language. */
export function nftWords(text: string): string[] {
  return [...text.matchAll(word)].map(([found]) => found);
}

/** Reads the words of one rule from left to right. */
export class NftReader {
  readonly text: string;
  readonly #words: readonly string[];
  #at = 0;
  #begun = 0;

  constructor(text: string) {
    this.text = text;
    this.#words = nftWords(text);
  }

  get done(): boolean {
    return this.#at >= this.#words.length;
  }

  /** The word that comes next, or the one `ahead` of it; empty at the end. */
  peek(ahead = 0): string {
    return this.#words[this.#at + ahead] ?? "";
  }

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

  /** @throws {UnknownRuleError} */
  expect(wanted: string): void {
    if (!this.take(wanted)) throw this.unknown();
  }

  /** The words up to a closing brace, which is taken too. */
  braces(): string {
    this.expect("{");
    const found: string[] = [];
    while (!this.done && this.peek() !== "}") found.push(this.next());
    this.expect("}");
    return found.join(" ").replaceAll(" ,", ",");
  }

  /** From here on an error names what is read. */
  begin(): void {
    this.#begun = this.#at;
  }

  /** The error for what is being read, up to the word that comes next. */
  unknown(): UnknownRuleError {
    const read = this.#words.slice(this.#begun, this.#at + 1);
    return new UnknownRuleError(read.length === 0 ? "end" : read.join(" "), this.text);
  }
}
