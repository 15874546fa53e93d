import { RefusedTextError } from "./errors.ts";
import { canonicalValue, isInterval, valueTest } from "./values.ts";

/** `a . b . c` in the spelling that packets' values have. */
export function canonicalKey(text: string): string {
  return text
    .split(" . ")
    .map((part) => canonicalValue(part.trim().replaceAll('"', "")))
    .join(" . ");
}

interface Interval {
  readonly tests: readonly ((value: string) => boolean)[];
  readonly value: string;
}

/** Splits the text between braces into pairs of key and value; values of sets are empty. */
export function parseElements(text: string): (readonly [string, string])[] {
  return text.split(",").flatMap((item): (readonly [string, string])[] => {
    // What stands behind a key is about the element, not part of it.
    const plain = item
      .replace(
        / (?:timeout \S+)?(?: ?expires \S+)?(?: ?counter packets \d+ bytes \d+)?(?= :|\s*$)/,
        "",
      )
      .replace(/ comment "[^"]*"/, "")
      .trim();
    if (plain === "") return [];
    const [key = "", value = ""] = plain.split(" : ");
    return [[canonicalKey(key), value.trim()]];
  });
}

/** A set or a map with its elements. */
export class NftContainer {
  readonly kind: "map" | "set";
  readonly name: string;
  readonly #elements = new Map<string, string>();
  #intervals: Interval[] = [];

  constructor(kind: "map" | "set", name: string) {
    this.kind = kind;
    this.name = name;
  }

  get size(): number {
    return this.#elements.size;
  }

  /** All elements, key to value. */
  get elements(): ReadonlyMap<string, string> {
    return this.#elements;
  }

  /** @throws {RefusedTextError} when the key is there with another value. */
  add(key: string, value: string): void {
    const known = this.#elements.get(key);
    if (known !== undefined && known !== value) {
      throw new RefusedTextError(`${this.name} has ${key} : ${known}, not ${value}`);
    }
    this.#elements.set(key, value);
    const parts = key.split(" . ");
    if (parts.some(isInterval)) this.#intervals.push({ tests: parts.map(valueTest), value });
  }

  /** @throws {RefusedTextError} when the key is not there. */
  delete(key: string): void {
    if (!this.#elements.delete(key)) throw new RefusedTextError(`${this.name} has no ${key}`);
    const rest = [...this.#elements];
    if (this.#intervals.length === 0) return;
    this.#intervals = [];
    this.#elements.clear();
    for (const [other, value] of rest) this.add(other, value);
  }

  clear(): void {
    this.#elements.clear();
    this.#intervals = [];
  }

  /** The value of a packet's key: empty text for a set; undefined when it is not in it. */
  lookUp(key: string): string | undefined {
    const found = this.#elements.get(key);
    if (found !== undefined || this.#intervals.length === 0) return found;
    const parts = key.split(" . ");
    return this.#intervals.find(
      ({ tests }) =>
        tests.length === parts.length && tests.every((test, at) => test(parts[at] ?? "")),
    )?.value;
  }
}
