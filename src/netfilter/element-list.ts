import type { NftElement } from "./transaction.ts";

/** nft keeps about 3 KB per command but half of that per element of a batched one. */
export const elementsPerCommand = 1000;
/** Below, plain objects are less work. */
const fewElements = 64;
const bytesAtFirst = 64 * 1024;

/** An element as the nft language has it. */
export function elementText({ key, value }: NftElement): string {
  return value === "" ? key : `${key} : ${value}`;
}

/**
 * Elements for a transaction, kept as the text that they become: a cold start has a hundred thousand, and as objects
 * they would be the most that the process ever holds.
 */
export class ElementList implements Iterable<NftElement> {
  #few: NftElement[] = [];
  /** Full commands. */
  readonly #commands: string[] = [];
  #buffer: Buffer | undefined;
  #used = 0;
  #length = 0;

  get length(): number {
    return this.#length;
  }

  push(element: NftElement): void {
    this.#length += 1;
    if (this.#length <= fewElements) {
      this.#few.push(element);
      return;
    }
    for (const before of this.#few) this.#write(elementText(before));
    if (this.#few.length > 0) this.#few = [];
    this.#write(elementText(element));
    if (this.#length % elementsPerCommand === 0) this.#endCommand();
  }

  /** Only characters of names, numbers and addresses are in it. */
  #write(text: string): void {
    const needed = text.length + 2;
    let buffer = this.#buffer ?? Buffer.allocUnsafeSlow(bytesAtFirst);
    if (this.#used + needed > buffer.length) {
      buffer = Buffer.concat([buffer.subarray(0, this.#used)], 2 * buffer.length + needed);
    }
    this.#buffer = buffer;
    if (this.#used > 0) this.#used += buffer.write(", ", this.#used, "latin1");
    this.#used += buffer.write(text, this.#used, "latin1");
  }

  #endCommand(): void {
    if (this.#buffer === undefined || this.#used === 0) return;
    this.#commands.push(this.#buffer.toString("latin1", 0, this.#used));
    this.#used = 0;
  }

  /** What stands between the braces of each command. */
  commands(): readonly string[] {
    if (this.#few.length > 0) return [this.#few.map(elementText).join(", ")];
    this.#endCommand();
    return this.#commands;
  }

  *[Symbol.iterator](): Generator<NftElement, void, undefined> {
    if (this.#few.length > 0) {
      yield* this.#few;
      return;
    }
    for (const text of this.commands().flatMap((command) => command.split(", "))) {
      const [key = "", value = ""] = text.split(" : ");
      yield { key, value };
    }
  }
}
