import { WordReader } from "./word-reader.ts";

const word = /"[^"]*"|[{};,]|[^\s{};,"]+/g;

/** The words of a line of nft's language. */
export function nftWords(text: string): string[] {
  return [...text.matchAll(word)].map(([found]) => found);
}

/** Reads the words of one rule. */
export class NftReader extends WordReader {
  constructor(text: string) {
    super(text, nftWords(text), 1);
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
}
